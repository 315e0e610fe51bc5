/* Several images at once, links and files */

let picked = null; // the ids that are selected, or null while one does not select
const isThere = (image) => !gone.has(image.image_id);

function toast(words, ...actions) {
  (document.querySelector("dialog[open]") ?? document.body).append($("toast")); // what is outside of a dialog is out of reach
  $("toast").hidden = false;
  $("toast").replaceChildren(el("p", {}, words), ...actions.map(([label, act]) => el("button", { className: "pill soft", type: "button", onclick: () => { $("toast").hidden = true; act(); } }, label)),
    el("button", { className: "pill quiet icon", type: "button", title: "Close", onclick: () => { $("toast").hidden = true; } }, icon("close"), hiddenText("Close the message")));
}

function select(is) {
  picked = is ? new Set() : null;
  document.body.classList.toggle("selecting", is);
  grid.querySelectorAll(".picked").forEach((each) => each.classList.remove("picked"));
  $("select").textContent = is ? "Stop selecting" : "Select";
  drawPicked();
}

function pick(id, item) {
  if (!picked.delete(id)) picked.add(id);
  item.classList.toggle("picked", picked.has(id));
  drawPicked();
}

function drawPicked() {
  $("picked").hidden = !picked;
  if (!picked) return;
  const act = (name, label, run) => el("button", { className: "pill line", type: "button", disabled: !picked.size, onclick: () => run([...picked]) }, icon(name), label);
  $("picked").replaceChildren(el("p", { role: "status" }, `${number(picked.size)} selected`),
    act("search", "Search with these", searchWith), act("link", "Copy links", copyLinks), act("down", "Download", download),
    ...(mayChange ? [act("bin", "Remove", (ids) => { select(false); remove(ids); })] : []),
    el("button", { className: "pill quiet", type: "button", onclick: () => select(false) }, "Done"));
}

function searchWith(ids) {
  if (ids.length > MOST_PARTS) { toast(`A search has room for ${MOST_PARTS} images, and ${number(ids.length)} are selected.`); return; }
  select(false);
  change(() => { query = { ...query, text: "", weight: 1, twins: false, parts: ids.map((value) => ({ kind: "image_id", value, weight: 1 })) }; text.value = ""; });
}

/* The image by itself: whoever opens the link sees it, whatever was searched for. */
const linkTo = (id) => new URL(`?${new URLSearchParams({ show: id })}`, location.href).href;

async function copyLinks(ids) {
  const words = ids.map(linkTo).join("\n");
  try {
    await navigator.clipboard.writeText(words); // not there where the address is neither https nor this machine
  } catch {
    const area = el("textarea", { value: words, className: "hidden-text" });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(ids.length > 1 ? `${number(ids.length)} links are copied.` : "The link is copied.");
}

/* The file that an image came from; where there is none, the large thumbnail. */
async function largest(id) {
  const sources = [original(id), thumbnail(id, "large")].filter(Boolean);
  let response;
  for (const source of sources) {
    response = await fetch(source, { headers: credentials() });
    if (response.status !== 404) break;
  }
  return response;
}

function fileName(id, response) {
  const given = /filename\*=UTF-8''([^;]+)/.exec(response.headers.get("Content-Disposition") ?? "");
  return given ? decodeURIComponent(given[1]) : `${(known.get(id)?.image_path ?? id).split("/").pop().replace(/[.][^.]+$/, "")}.webp`;
}

async function download(ids) {
  let failures = 0;
  for (const id of ids) {
    try {
      const response = await largest(id);
      if (!response?.ok) throw new Error(response?.statusText);
      const url = URL.createObjectURL(await response.blob());
      el("a", { href: url, download: fileName(id, response) }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch {
      failures += 1;
    }
  }
  if (failures) toast(`${plural(failures, "image")} could not be downloaded.`);
}

$("select").addEventListener("click", () => select(!picked));
$("copy").addEventListener("click", () => copyLinks([shown]));
$("save").addEventListener("click", () => download([shown]));
$("twins").addEventListener("click", () => {
  const value = shown;
  leaveFor(() => { query = { ...query, text: "", weight: 1, twins: true, parts: [{ kind: "image_id", value, weight: 1 }] }; text.value = ""; });
});
