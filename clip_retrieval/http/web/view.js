/* The large view */

async function open(imageId, at = -1, mode = "push") {
  opener = document.activeElement;
  shown = imageId;
  if (mode) remember(mode, { opened: mode === "push" });
  let image = known.get(imageId);
  if (!image?.metadata) {
    try {
      [image] = await ask(`images/${encodeURIComponent(imageId)}`);
      if (image.image_id !== imageId) throw new Error("a browser asks for another address in place of its id"); /* of .. and . */
      image = { ...known.get(imageId), ...image };
    } catch (error) {
      if (!image) { shown = null; remember("replace"); say(`That image cannot be shown: ${error.message}`); return; }
    }
    if (shown !== imageId) return;
  }
  known.set(imageId, image);
  drawDialog(image, at < 0 ? results.findIndex((each) => each.image_id === imageId) : at);
  if (!dialog.open) { returned = document.activeElement; dialog.showModal(); }
  $("facts").scrollTop = 0;
}

function drawDialog(image, at) {
  const steps = [["back", -1, "Previous image"], ["on", 1, "Next image"]].map(([name, by, words]) =>
    el("button", { className: `step ${name}`, type: "button", title: words, disabled: at < 0 || !results[at + by], onclick: () => step(by) }, icon(name), hiddenText(words)));
  const large = imageElement(image, "large", () => el("p", {}, alt(image)));
  // No image is shown larger than it is: the copy that the service has may be smaller than the file was.
  const atMost = (width, height) => { large.style.maxWidth = `${width}px`; large.style.maxHeight = `${height}px`; };
  if (image.width) atMost(image.width, image.height);
  large.addEventListener("load", () => atMost(large.naturalWidth, large.naturalHeight));
  clearTimeout(wholeTimer);
  wholeTimer = setTimeout(() => showOriginal(image, large), WHOLE_MS);
  dialog.style.setProperty("--frame", `${frame(image)}px`);
  $("figure").replaceChildren(large, ...steps);
  $("place").replaceChildren(at < 0 ? "" : `${at + 1} of ${number(results.length)}`);
  $("dialog-title").textContent = alt(image);
  $("lines").replaceChildren(...image.captions.map((line) => el("li", {}, line)));
  $("lines").hidden = !image.captions.length;
  const facts = Object.entries(image.metadata ?? {}).filter(([, value]) => value !== null && value !== "");
  list($("credits"), "Credits", facts.filter(([name]) => CREDIT.test(name)));
  list($("details"), "Details", [...facts.filter(([name]) => !CREDIT.test(name) && name !== "split"), ["file", image.image_path],
    ...(image.width ? [["size", `${number(image.width)} × ${number(image.height)} pixels`]] : []),
    ...(image.similarity_score === undefined ? [] : [["similarity", image.similarity_score.toFixed(3), "score"]])]);
  dialog.dataset.place = at;
  $("editor").hidden = true;
  $("edit").hidden = $("remove").hidden = !mayChange;
}

/* The file itself, where the service has it and the browser shows such files: it may be large, so not while one goes on
   from image to image. Until it is there, or where it is not, the thumbnail stays. */
let wholeTimer = 0;
function showOriginal(image, instead) {
  const source = original(image.image_id);
  if (!source || shown !== image.image_id) return;
  const whole = el("img", { className: "whole", alt: alt(image), decoding: "async", onload: () => {
    whole.style.maxWidth = `${whole.naturalWidth}px`;
    whole.style.maxHeight = `${whole.naturalHeight}px`;
    instead.replaceWith(whole);
  } });
  shownFrom(source, whole);
}

/* The longest side that an image of these results is shown with: the view keeps its size from one image to the next. */
function frame(image) {
  const sides = [image, ...results].map(({ width, height }) => Math.max(width || 0, height || 0));
  return Math.min(info?.links?.originals ? LARGEST_ORIGINAL : LARGEST, Math.max(SMALLEST_FRAME, ...sides));
}

function list(where, title, pairs) {
  where.hidden = !pairs.length;
  where.replaceChildren(el("h3", {}, title), el("dl", {}, ...pairs.flatMap(([name, value, className]) => [el("dt", { className }, named(name)), el("dd", { className }, link(value))])));
}

function link(value) {
  const words = value === true ? "yes" : value === false ? "no" : String(value);
  if (!/^https?:\/\/\S+$/.test(words) || !URL.canParse(words)) return words;
  const { protocol, host } = new URL(words);
  if (protocol !== "https:" && protocol !== "http:") return words;
  return el("a", { href: words, target: "_blank", rel: "noopener noreferrer", title: words }, host, hiddenText(" (opens in a new tab)"));
}

function step(by) {
  const at = Number(dialog.dataset.place) + by;
  if (Number(dialog.dataset.place) < 0 || !results[at]) return;
  open(results[at].image_id, at, null);
  remember("replace", { opened: history.state?.opened });
  opener = grid.querySelector(`[data-place="${at}"]`);
  if (at >= results.length - 3) more();
  ($("figure").querySelector(`.step.${by < 0 ? "back" : "on"}:not(:disabled)`) ?? $("shut")).focus();
}

function leave() {
  if (shown === null) return;
  shown = null;
  if (!history.state?.opened) { remember("replace"); return; }
  leaving = true;
  history.back();
}

function like(weight) {
  const value = shown;
  const part = query.parts.find((each) => each.kind === "image_id" && each.value === value);
  leaveFor(() => {
    query.twins = false;
    query.parts = part ? query.parts.map((each) => (each === part ? { ...each, weight } : each)) : [...query.parts, { kind: "image_id", value, weight }];
  });
}

/* From the large view to another search. */
function leaveFor(edit) {
  shown = null;
  remember("replace");
  dialog.close();
  change(edit);
  $("results").focus({ preventScroll: true });
}
