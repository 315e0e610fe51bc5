/* The service */

/* Where the service is: the folder of this page, or the prefix that the service knows of (a proxy may drop a slash). */
const ROOT = new URL(document.querySelector('meta[name="root"]').content, document.baseURI);

class Failure extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

async function ask(path, { method, body, form, signal, headers = {}, keepalive } = {}) {
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method: method ?? (body || form ? "POST" : "GET"),
      headers: { Accept: "application/json", ...credentials(), ...(seen && { "Min-Sequence": String(seen) }), ...(body && { "Content-Type": "application/json" }), ...headers },
      body: form ?? (body && JSON.stringify(body)),
      signal,
      keepalive,
    });
    const answer = await response.json();
    if (response.ok) return [answer, response.headers];
    throw new Failure(response.status, answer.detail || response.statusText, Number(response.headers.get("Retry-After")) || 1);
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
    throw new Failure(response?.status ?? 0, response ? "The answer was not one of this service." : "The service cannot be reached.", 1);
  }
}

function thumbnail(imageId, size) {
  const template = info?.links?.thumbnails;
  if (!template) return null;
  const path = template.slice(template.indexOf("thumbnails/{")); // a prefix may have such a word, too
  const url = new URL(path.replace("{size}", size).replace("{image_id}", () => encodeURIComponent(imageId)), ROOT);
  if (changedAt.has(imageId)) url.searchParams.set("min_sequence", changedAt.get(imageId));
  return url.href;
}

/* The address of the file that an image came from, where the service has such files. */
function original(imageId) {
  const template = info?.links?.originals;
  if (!template) return null;
  return new URL(template.slice(template.indexOf("originals/{")).replace("{image_id}", () => encodeURIComponent(imageId)), ROOT).href;
}

function imageElement(image, size, instead) {
  const source = thumbnail(image.image_id, size);
  if (!source) return instead();
  const [width, height] = [image.width || 4, image.height || 3];
  const node = el("img", {
    alt: alt(image), width, height, decoding: "async", loading: size === "small" ? "lazy" : "eager",
    onerror: (event) => event.target.replaceWith(instead()),
  });
  return shownFrom(source, node, size === "small");
}

/* An img element cannot send a header. With a key its bytes are fetched, once it is near what is seen. */
function shownFrom(source, node, waits = false) {
  if (!key) node.src = source;
  else if (waits) { node.dataset.source = source; near.observe(node); }
  else fetchInto(node, source);
  return node;
}

async function fetchInto(node, source) {
  try {
    const response = await fetch(source, { headers: credentials() });
    if (!response.ok) throw new Failure(response.status, response.statusText, 1);
    const url = URL.createObjectURL(await response.blob());
    node.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    node.src = url;
  } catch {
    node.dispatchEvent(new Event("error"));
  }
}

const near = new IntersectionObserver((entries) => entries.filter((each) => each.isIntersecting).forEach(({ target }) => {
  near.unobserve(target);
  fetchInto(target, target.dataset.source);
}), { rootMargin: "600px" });
