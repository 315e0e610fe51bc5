/* Captions and fields of an image are changed where it is looked at. */

let edited = null; // what the form was made of, with its ETag

const stated = (image) => ({ captions: image.captions, metadata: image.metadata ?? {} });

async function edit() {
  const id = shown;
  let image, headers;
  try {
    [image, headers] = await ask(`images/${encodeURIComponent(id)}`);
  } catch (error) {
    toast(`The image cannot be changed: ${sentence(error.message)}`);
    return;
  }
  if (shown !== id) return;
  edited = { id, etag: headers.get("ETag"), ...stated(image) };
  const names = [...new Map([...fields.filter(({ name }) => name !== "split").map(({ name, type }) => [name, type]),
    ...Object.entries(edited.metadata).filter(([name]) => name !== "split").map(([name, value]) => [name, typeof value === "string" ? "text" : typeof value])])];
  const captions = el("textarea", { id: "edit-captions", name: "captions", rows: Math.max(2, Math.min(6, edited.captions.length + 1)), value: edited.captions.join("\n") });
  $("editor").replaceChildren(
    el("div", {}, el("label", { htmlFor: "edit-captions" }, "Captions, one a line"), captions),
    ...names.map(([name, type], i) => el("div", {}, el("label", { htmlFor: `edit-${i}` }, named(name)), control(`edit-${i}`, name, type, edited.metadata[name]))),
    el("div", {}, el("p", { className: "name" }, "Another field"), el("div", { className: "pair" },
      el("input", { id: "edit-name", "aria-label": "Name of another field", placeholder: "name", maxLength: 100 }),
      el("input", { id: "edit-value", "aria-label": "Value of another field", placeholder: "value", maxLength: 10000 }))),
    el("p", { className: "wrong", id: "edit-wrong", role: "alert" }),
    el("div", { className: "actions" }, el("button", { className: "pill line", type: "button", onclick: endEdit }, "Cancel"), el("button", { className: "pill full", type: "submit" }, "Save")));
  $("editor").hidden = false;
  captions.focus();
}

function control(id, name, type, value) {
  const common = { id, "data-name": name, "data-type": type };
  if (type !== "boolean") return el("input", { ...common, type: type === "number" ? "number" : "text", step: "any", maxLength: 10000, value: value ?? "" });
  const choice = el("select", common, ...["", "yes", "no"].map((each) => el("option", { value: each }, each || "–")));
  choice.value = value === true ? "yes" : value === false ? "no" : "";
  return choice;
}

function endEdit() { $("editor").hidden = true; $("edit").focus(); }

/* The merge patch that makes of `before` what the form says; null removes a field. */
function patchOf(before) {
  const metadata = {};
  for (const node of $("editor").querySelectorAll("[data-name]")) {
    const { name, type } = node.dataset, words = node.value.trim();
    const value = words === "" ? null : type === "number" ? Number(words) : type === "boolean" ? words === "yes" : words;
    if (value !== (before.metadata[name] ?? null)) metadata[name] = value;
  }
  const name = $("edit-name").value.trim();
  if (name && $("edit-value").value.trim()) metadata[name] = $("edit-value").value.trim();
  const captions = $("edit-captions").value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { ...(JSON.stringify(captions) === JSON.stringify(before.captions) ? {} : { captions }), ...(Object.keys(metadata).length ? { metadata } : {}) };
}

async function patch(id, body, etag) {
  const [made] = await ask(`images/${encodeURIComponent(id)}`, { method: "PATCH", body, headers: etag ? { "If-Match": etag } : {} });
  noteChange(made.sequence);
  const [image] = await ask(`images/${encodeURIComponent(id)}`);
  const now = { ...known.get(id), ...image };
  known.set(id, now);
  results = results.map((each) => (each.image_id === id ? { ...each, ...image } : each));
  examples = examples.map((each) => (each.image_id === id ? { ...each, ...image } : each));
  redraw(results);
  if (shown === id) { drawDialog(now, Number(dialog.dataset.place)); opener = grid.querySelector(`[data-place="${dialog.dataset.place}"]`); }
  if (body.metadata) { [{ fields }] = await ask("fields"); drawFilters(); }
  return made;
}

async function saveEdit() {
  const before = edited, body = patchOf(before);
  if (!Object.keys(body).length) return endEdit();
  const back = { ...(body.captions && { captions: before.captions }),
    ...(body.metadata && { metadata: Object.fromEntries(Object.keys(body.metadata).map((name) => [name, before.metadata[name] ?? null])) }) };
  try {
    const made = await patch(before.id, body, before.etag);
    if (shown === before.id) $("edit").focus();
    toast("The image is changed.", ["Undo", () => patch(before.id, back, `"${made.etag}"`).catch((error) => toast(`That could not be undone: ${sentence(error.message)}`))]);
  } catch (error) {
    $("edit-wrong").textContent = await problemOf(error);
  }
}

async function problemOf({ status, message }) {
  if (status !== 412) return status === 403 ? "Your key does not allow changes." : sentence(message);
  const [image, headers] = await ask(`images/${encodeURIComponent(edited.id)}`);
  edited = { ...edited, etag: headers.get("ETag"), ...stated(image) };
  return `Someone else has changed this image meanwhile; its captions are now: ${image.captions.join("; ") || "none"}. Save again to have yours instead.`;
}

$("edit").addEventListener("click", edit);
$("editor").addEventListener("submit", (event) => { event.preventDefault(); saveEdit(); });
