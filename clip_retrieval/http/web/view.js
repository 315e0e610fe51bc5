/* The large view */

async function open(imageId, place = -1, mode = "push") {
  opener = document.activeElement;
  shown = imageId;
  if (mode) remember(mode, { opened: mode === "push" });
  let image = known.get(imageId);
  if (!image?.metadata) {
    try {
      [image] = await ask(`images/${encodeURIComponent(imageId)}`);
      image = { ...known.get(imageId), ...image };
    } catch (error) {
      if (!image) { shown = null; remember("replace"); say(`That image cannot be shown: ${error.message}`); return; }
    }
    if (shown !== imageId) return;
  }
  known.set(imageId, image);
  drawDialog(image, place < 0 ? results.findIndex((each) => each.image_id === imageId) : place);
  if (!dialog.open) { returned = document.activeElement; dialog.showModal(); }
  $("facts").scrollTop = 0;
}

function drawDialog(image, place) {
  const steps = [["back", -1, "Previous image"], ["on", 1, "Next image"]].map(([name, by, words]) =>
    el("button", { className: `step ${name}`, type: "button", title: words, disabled: place < 0 || !results[place + by], onclick: () => step(by) }, icon(name), hiddenText(words)));
  const large = imageElement(image, "large", () => el("p", {}, alt(image)));
  if (image.width) { large.style.maxWidth = `${ENLARGED * image.width}px`; large.style.maxHeight = `${ENLARGED * image.height}px`; }
  $("figure").replaceChildren(large, ...steps);
  $("place").replaceChildren(place < 0 ? "" : `${place + 1} of ${results.length}${image.similarity_score === undefined ? "" : ` · cosine ${image.similarity_score.toFixed(3)}`}`);
  $("dialog-title").textContent = alt(image);
  $("lines").replaceChildren(...image.captions.map((line) => el("li", {}, line)));
  $("lines").hidden = !image.captions.length;
  const facts = Object.entries(image.metadata ?? {}).filter(([, value]) => value !== null && value !== "");
  list($("credits"), "Credits", facts.filter(([name]) => CREDIT.test(name)));
  list($("details"), "Details", [...facts.filter(([name]) => !CREDIT.test(name)), ["file", image.image_path],
    ...(image.width ? [["size", `${number(image.width)} × ${number(image.height)} pixels`]] : [])]);
  dialog.dataset.place = place;
}

function list(where, title, pairs) {
  where.hidden = !pairs.length;
  where.replaceChildren(el("h3", {}, title), el("dl", {}, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, link(value))])));
}

function link(value) {
  const words = value === true ? "yes" : value === false ? "no" : String(value);
  if (!/^https?:\/\/\S+$/.test(words) || !URL.canParse(words)) return words;
  const { protocol, host } = new URL(words);
  if (protocol !== "https:" && protocol !== "http:") return words;
  return el("a", { href: words, target: "_blank", rel: "noopener noreferrer", title: words }, host, hiddenText(" (opens in a new tab)"));
}

function step(by) {
  const place = Number(dialog.dataset.place) + by;
  if (Number(dialog.dataset.place) < 0 || !results[place]) return;
  open(results[place].image_id, place, null);
  remember("replace", { opened: history.state?.opened });
  opener = grid.querySelector(`[data-place="${place}"]`);
  if (place >= results.length - 3) more();
  ($("figure").querySelector(`.step.${by < 0 ? "back" : "on"}:not(:disabled)`) ?? $("shut")).focus();
}

function leave() {
  if (shown === null) return;
  shown = null;
  if (history.state?.opened) history.back();
  else remember("replace");
}

function like(weight) {
  const value = shown;
  const part = query.parts.find((each) => each.kind === "image_id" && each.value === value);
  shown = null;
  history.replaceState({ parts: query.parts }, "", address());
  dialog.close();
  change(() => {
    query.parts = part ? query.parts.map((each) => (each === part ? { ...each, weight } : each)) : [...query.parts, { kind: "image_id", value, weight }];
  });
  $("results").focus({ preventScroll: true });
}
