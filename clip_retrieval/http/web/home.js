/* The first view */

function home() {
  stop();
  busy(false);
  clearResults();
  $("state").replaceChildren();
  $("tail").replaceChildren();
  $("captions").hidden = $("summary").hidden = true;
  $("hero").hidden = false;
  $("found").hidden = true;
  $("status").textContent = "";
  if (info) $("lead").replaceChildren(plural(info.images, "image"), el("span", { className: "wide" }, ". Say what you look for, or give an image: choose, paste or drop it."));
  const spoken = [...new Set(examples.map((image) => image.captions[0]).filter((words) => words && words.length <= 42))];
  const picked = spoken.filter((_, i) => i % Math.max(1, Math.floor(spoken.length / 5)) === 0).slice(0, 5);
  $("tries").replaceChildren(...picked.map((words) => el("button", { className: "pill line", type: "button",
    onclick: () => { change(() => { query.text = text.value = words; }); text.focus(); } }, words)));
  const spread = examples.filter(isThere);
  grid.hidden = !spread.length;
  grid.replaceChildren(...spread.map((image) => tile(image, -1)));
  if (place && info) { scrollTo(0, place.y); place = null; }
}

function startOver() {
  change(() => { query = { text: "", weight: 1, parts: [], where: {}, dedupe: false, words: false, twins: false, far: false, sort: null }; text.value = ""; });
  drawFilters();
  text.focus();
}

async function begin() {
  try {
    const [[served], [offered], [spread], [health]] = await Promise.all([ask(""), ask("fields"), ask("examples"), ask("health")]);
    [info, fields, examples, mayChange] = [served, offered.fields, spread.images, health.may_change];
    $("add").hidden = !mayChange;
    $("sign").hidden = mayChange || !health.takes_changes;
  } catch (error) {
    failed(error, $("state"), begin);
    return;
  }
  examples.forEach((image) => known.set(image.image_id, image));
  describe();
  await resume();
}

async function resume() {
  drawQuery();
  drawFilters();
  const wanted = shown;
  const names = query.parts.filter((part) => part.kind === "image_id" && !known.has(part.value)).map((part) => part.value);
  await Promise.all(names.map((name) => ask(`images/${encodeURIComponent(name)}`).then(
    ([image]) => known.set(name, image), () => {})));
  if (names.length) drawQuery();
  if (searched === null || searched !== wording()) await search(); // else it was typed meanwhile, and is asked already
  if (wanted !== null && shown === wanted) await open(wanted, -1, null);
}

function describe() { $("about").textContent = `${plural(info.images, "image")}, ${plural(info.captions, "caption")}, model ${info.model}`; }
