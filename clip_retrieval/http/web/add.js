/* Images come: many at once, each with what became of it. */

const adding = $("adding");
let queue = [], sending = false;

function queueUp(files) {
  queue.push(...files.map((file) => ({ file, caption: "", became: "", url: URL.createObjectURL(file), done: false, wrong: false, node: null })));
  if (!adding.open) adding.showModal();
  drawQueue();
}

function drawQueue() {
  for (const each of queue.filter(({ node }) => !node)) {
    const caption = el("input", { "aria-label": `Caption of ${each.file.name}`, placeholder: "Caption", maxLength: 10000, oninput: (event) => { each.caption = event.target.value.trim(); } });
    const drop = el("button", { className: "pill quiet icon", type: "button", title: "Leave out", onclick: () => { queue = queue.filter((other) => other !== each); each.node.remove(); URL.revokeObjectURL(each.url); drawQueue(); } }, icon("close"), hiddenText(`Leave out ${each.file.name}`));
    each.node = el("li", {}, el("img", { src: each.url, alt: "", onerror: (event) => { event.target.style.visibility = "hidden"; } }),
      el("div", {}, el("p", { className: "file", title: each.file.name }, each.file.name), caption, el("p", { className: "became" })), drop);
    $("queue").append(each.node);
  }
  for (const each of queue) {
    const line = each.node.querySelector(".became");
    line.textContent = each.became;
    line.classList.toggle("wrong", each.wrong);
    each.node.querySelector("input").hidden = each.done;
    each.node.querySelector("button").hidden = each.done || sending;
  }
  const [open, done, wrong] = [queue.filter((each) => !each.done).length, queue.filter((each) => each.done).length, queue.filter((each) => each.wrong).length];
  $("adding-send").disabled = sending || !open;
  $("adding-send").textContent = wrong && wrong === open ? `Try ${plural(wrong, "image")} again` : open ? `Add ${plural(open, "image")}` : "Add";
  $("adding-progress").hidden = !sending;
  $("adding-progress").max = queue.length;
  $("adding-progress").value = done + wrong;
  $("adding-status").textContent = queue.length && (sending || done || wrong) ? `${number(done)} of ${plural(queue.length, "image")} in the collection${wrong ? `, ${number(wrong)} not` : ""}.` : "";
}

async function send() {
  sending = true;
  const waiting = queue.filter((each) => !each.done);
  waiting.forEach((each) => { each.wrong = false; each.became = "waiting"; each.token ??= token(); });
  drawQueue();
  const worker = async () => {
    for (let each = waiting.shift(); each; each = waiting.shift()) await sendOne(each);
  };
  await Promise.all(Array.from({ length: TOGETHER }, worker));
  sending = false;
  drawQueue();
}

/* 128 random bits; crypto.randomUUID is not there where the address is neither https nor this machine. */
const token = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function sendOne(each, idFrom = "name") {
  each.became = "sending";
  drawQueue();
  const form = new FormData();
  form.append("file", each.file, each.file.name);
  form.append("id_from", idFrom);
  if (each.caption) form.append("captions", each.caption);
  try {
    const [made] = await ask("images", { form, headers: { "Idempotency-Key": `${each.token}-${idFrom}` } });
    noteChange(made.sequence, made.image_id);
    each.done = true;
    each.id = made.image_id;
    each.became = !made.created ? "This image is in the collection already." : idFrom === "name" ? "Added." : "Added; another image has the same file name.";
  } catch (error) {
    if (error.status === 409 && idFrom === "name" && /another|already/.test(error.message)) return sendOne(each, "content");
    if (WAITS.has(error.status)) {
      each.became = `The service is busy; again in ${plural(error.retryAfter, "second")}.`;
      drawQueue();
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
      return sendOne(each, idFrom);
    }
    each.wrong = true;
    each.became = error.status || (await isReadable(each.file)) ? whyNot(error, each.file) : UNREADABLE;
  }
  drawQueue();
}

/* A file that cannot be read looks to `fetch` as a service that cannot be reached. */
const isReadable = (file) => file.arrayBuffer().then(() => true, () => false);

function whyNot({ status, message }, file) {
  if (status === 413) return `The file has ${number(file.size / 1e6, 1)} MB, which is more than this service takes.`;
  if (status === 401 || status === 403) return "Your key does not allow you to add images.";
  const words = sentence(message.replace(/^file: /, ""));
  return words[0].toUpperCase() + words.slice(1);
}

/* What was added is seen at once: first of all on the first view, and by its rank in a search. */
async function endAdding() {
  const added = queue.filter((each) => each.done);
  queue = queue.filter((each) => !each.done);
  added.forEach((each) => { each.node.remove(); URL.revokeObjectURL(each.url); });
  drawQueue();
  if (!added.length) return;
  const read = await Promise.all(added.map(({ id }) => ask(`images/${encodeURIComponent(id)}`).then(([image]) => image, () => null)));
  const ids = new Set(added.map(({ id }) => id));
  examples = [...read.filter(Boolean), ...examples.filter(({ image_id }) => !ids.has(image_id))];
  [info] = await ask("");
  describe();
  await search();
}

$("add").addEventListener("click", () => { adding.showModal(); drawQueue(); });
$("adding-choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", (event) => { queueUp([...event.target.files]); event.target.value = ""; });
$("adding-form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("adding-shut").addEventListener("click", () => adding.close());
adding.addEventListener("close", endAdding);
$("sign").addEventListener("click", () => askForKey("", async () => {
  await begin();
  if (info && !mayChange) toast("This key allows searching, but not changing images.");
}, "A key for changes lets you add, edit and remove images here."));
