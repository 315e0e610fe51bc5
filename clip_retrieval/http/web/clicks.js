/* Where the service logs its searches, the answer names the search, and the page says which of its images was opened. */

let searchId = null;

function clicked(imageId) {
  if (searchId) ask("clicks", { body: { search_id: searchId, image_id: imageId }, keepalive: true }).catch(() => {});
}
