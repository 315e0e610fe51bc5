/* Drawing */

function busy(is) {
  $("header").classList.toggle("busy", is);
  $("results").setAttribute("aria-busy", is);
}

/* An answer has been drawn. The page is still busy if a newer search is about to be sent. */
function done() { if (!timer) busy(false); }

function say(words) { $("summary").hidden = false; $("status").textContent = words; }

function state(where, name, title, words, actions, reason = "") {
  where.replaceChildren(el("div", { className: "state" }, icon(name), el("h2", {}, title), el("p", {}, ...words),
    ...(reason ? [el("details", {}, el("summary", {}, "What the service said"), sentence(reason))] : []),
    el("div", { className: "actions" }, ...actions.map(([label, act, kind]) => el("button", { className: `pill ${kind}`, type: "button", onclick: () => act() }, label)))));
}

function clearResults() {
  results = [];
  searchId = null;
  nextOffset = rest = null;
  $("rest").replaceChildren();
  grid.replaceChildren();
  grid.className = "grid";
  grid.hidden = true;
  $("more").hidden = true;
}

function ghosts() {
  $("state").replaceChildren();
  grid.hidden = false;
  grid.classList.add("ghost");
  grid.replaceChildren(...[1.5, 0.8, 1.3, 1.5, 1, 1.7, 0.8, 1.5, 1.2, 1.5].map((ratio) => {
    const tile = el("li", { className: "tile", "aria-hidden": "true" }, el("div", { className: "shot" }), el("p"));
    tile.style.setProperty("--ratio", ratio);
    return tile;
  }));
  say("Searching…");
}

function draw(answer, headers) {
  clearResults();
  searchId = answer.search_id ?? null;
  $("state").replaceChildren();
  $("captions").hidden = true;
  drawTiming(headers, answer);
  append(answer, 0);
  if (!results.length && rest !== null) {
    state($("state"), "search", "Nothing here is near enough", [`Nothing ${Object.keys(query.where).length ? "that passes the filters" : "in the collection"} fits these words well.`],
      [["Show the nearest", showRest, "full"], ["Start over", startOver, "line"]]);
  } else if (!results.length) {
    const filtered = Object.keys(query.where).length > 0;
    if (query.twins) state($("state"), "search", "No near-duplicates", ["No other image of this collection is nearly the same."], [["All similar images", () => change(() => { query.twins = false; }), "full"]]);
    else state($("state"), "search", filtered ? "No image passes these filters" : "Nothing found",
      [filtered ? "Loosen or clear a filter; the words and images of your search stay." : "The collection has no image for this. Try other words, or start over."],
      filtered ? [["Clear filters", unfilter, "full"], ["Start over", startOver, "line"]] : [["Start over", startOver, "full"]]);
  }
  announce(answer.truncated ? " The model reads only the beginning of a text this long." : "");
  watch();
}

function append(answer, offset) {
  const from = results.length, found = answer.results.filter(isThere);
  results = results.concat(found);
  nextOffset = answer.next_offset;
  grid.hidden = !results.length;
  grid.classList.toggle("few", nextOffset === null && results.length <= FEW); // they have the room to be larger
  grid.append(...tiles(from));
  $("more").hidden = nextOffset === null;
  rest = answer.below_confidence > 0 ? offset + answer.results.length : null;
  $("rest").replaceChildren(...(rest === null || !results.length ? [] : [el("p", {}, "Nothing else is near enough."),
    el("button", { className: "pill line", type: "button", onclick: showRest }, "Show what is less near")]));
}

/* Where the others are shown too, a line parts those that are near enough. */
const isFar = ({ confidence }) => typeof confidence === "number" && confidence < cutOff();
const firstFar = () => (least === undefined && isJudged("images") ? results.findIndex(isFar) : -1);

function tiles(from = 0) {
  const far = firstFar();
  return results.slice(from).flatMap((image, i) => [
    ...(from + i === far && far ? [el("li", { className: "fill", "aria-hidden": "true" })] : []),
    ...(from + i === far ? [el("li", { className: "far" }, far ? "Less near from here on" : "Nothing here is near enough. These are the nearest.")] : []),
    tile(image, from + i)]);
}

function tile(image, at) {
  known.set(image.image_id, image);
  const words = () => el("span", { className: "words" }, alt(image));
  const shot = el("a", { className: "shot", href: address(image.image_id), "data-place": at, onclick: (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // the browser opens the link in its own way
    event.preventDefault();
    if (picked) pick(image.image_id, item);
    else { clicked(image.image_id); open(image.image_id, at); }
  } }, imageElement(image, grid.classList.contains("few") ? "large" : "small", words));
  if (image.duplicates > 0) shot.append(el("span", { className: "mark" }, `+${image.duplicates}`, hiddenText(" near-duplicates")));
  if (image.similarity_score !== undefined) shot.append(el("span", { className: "score" }, hiddenText("similarity "), image.similarity_score.toFixed(2)));
  shot.append(el("span", { className: "tick", "aria-hidden": "true" }, icon("check")));
  const item = el("li", { className: `tile ${picked?.has(image.image_id) ? "picked" : ""}` }, shot);
  if (thumbnail(image.image_id, "small")) item.append(el("p", { "aria-hidden": "true", title: alt(image) }, image.captions[0] ?? image.image_path));
  const ratio = image.width && image.height ? image.width / image.height : 1.4;
  item.style.setProperty("--ratio", Math.max(0.7, Math.min(2.2, ratio)).toFixed(4));
  return item;
}

function announce(also = "") {
  if (!results.length) { say(rest === null ? "No image found." : "No image is near enough."); return; }
  say(`${plural(results.length, "image")}${nextOffset === null ? "" : " so far"}${asked().length ? ", nearest first" : ""}.${also}`);
}

function drawTiming(headers, answer) {
  const stages = [...(headers.get("Server-Timing") || "").matchAll(/(\w+);dur=([\d.]+)/g)].map((m) => [m[1], Number(m[2])]);
  const shownStages = stages.filter(([name, ms]) => ms > 0 || name === "total");
  $("timing").replaceChildren(...shownStages.flatMap(([name, ms], i) => [
    `${i ? "  ·  " : ""}${name} `, el("b", {}, number(ms, ms < 10 ? 1 : 0)), " ms"]), answer.cached ? "  ·  from the cache" : "");
}

function drawCaptions(found) {
  const lines = [...new Map(found.map((line) => [line.caption, line])).values()];
  $("captions").hidden = !lines.length || !results.length;
  $("said").replaceChildren(...lines.map((line) => el("li", {}, el("button", {
    className: "pill line", type: "button", title: "Search for these words",
    onclick: () => change(() => { query = { ...query, text: [...line.caption].slice(0, 1000).join(""), weight: 1, parts: [] }; text.value = query.text; }),
  }, el("span", { className: "said" }, line.caption), el("span", { className: "score" }, hiddenText("similarity "), line.similarity_score.toFixed(2))))));
}

function weigher(label, weight, set) {
  const steps = (by) => { const next = weight + by; return next === 0 ? next + by : next; };
  const button = (name, by, words) => el("button", { type: "button", disabled: Math.abs(steps(by)) > HEAVIEST, title: words, "data-focus": `${label}${by}`,
    onclick: () => set(steps(by)) }, icon(name), hiddenText(`${words}: ${label}`));
  return [button("minus", -STEP, "Less"), el("span", { className: "weight" }, hiddenText("weight "), signed(weight)), button("plus", STEP, "More")];
}

function chip(label, { weight, set, remove, image, kind = "", said = label }) {
  const item = el("li", { className: `chip ${kind} ${weight < 0 ? "minus" : ""}` });
  if (image) {
    const node = el("img", { alt: "", onerror: (event) => event.target.remove() });
    if (image.startsWith("blob:")) node.src = image;
    item.append(image.startsWith("blob:") ? node : shownFrom(image, node));
  }
  item.append(el("span", { className: "label", title: said }, said));
  if (set) item.append(...weigher(label, weight, set));
  item.append(el("button", { type: "button", title: "Remove", onclick: () => { remove(); text.focus(); } }, icon("close"), hiddenText(`Remove: ${label}`)));
  return item;
}

function drawQuery() {
  const { words, without } = typed(), focus = document.activeElement?.dataset?.focus;
  const chips = [];
  if (words && query.parts.length) chips.push(chip(words, {
    weight: query.weight, set: (weight) => change(() => { query.weight = weight; }),
    remove: () => change(() => { query.text = text.value = query.text.match(MINUS)?.map((each) => each.trim()).join(" ") ?? ""; query.weight = 1; }) }));
  for (const each of without) chips.push(chip(each, { weight: LESS, said: `without “${each}”`,
    remove: () => change(() => { query.text = text.value = query.text.replace(MINUS, (all, ...found) => ((found[0] ?? found[1]).trim() === each ? "" : all)).replace(/\s+/g, " ").trim(); }) }));
  for (const part of query.parts) {
    const image = part.kind === "upload" ? uploads.get(part.value).url : part.kind === "image_id" ? thumbnail(part.value, "small") : null;
    const label = part.kind === "upload" ? "Your image" : part.kind === "text" ? part.value : known.get(part.value)?.captions?.[0] ?? part.value;
    chips.push(chip(label, { image, weight: part.weight, set: (weight) => change(() => { query.parts = query.parts.map((p) => (p === part ? { ...p, weight } : p)); }),
      remove: () => change(() => { query.parts = query.parts.filter((p) => p !== part); }) }));
  }
  if (query.twins) chips.push(chip("Near-duplicates only", { kind: "filter", remove: () => change(() => { query.twins = false; }) }));
  for (const [name, condition] of Object.entries(query.where))
    chips.push(chip(filterWords(name, condition), { kind: "filter", remove: () => { change(() => { delete query.where[name]; }); drawFilters(); } }));
  $("chips").replaceChildren(...chips);
  $("chips").hidden = !chips.length;
  if (focus) [...$("chips").querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focus && !node.disabled)?.focus();
  drawOrder();
  $("keep").hidden = !query.text.trim();
  $("clear").hidden = !query.text.trim() && !query.parts.length;
  document.body.classList.toggle("searching", !$("clear").hidden);
  const count = Object.keys(query.where).length + (query.dedupe ? 1 : 0) + (query.words ? 1 : 0);
  $("filter-count").hidden = !count;
  $("filter-count").textContent = count;
  const own = query.parts.some((part) => part.kind === "upload");
  $("note").hidden = !own && !lost;
  $("note").textContent = own
    ? "Your image was sent to this service, which does not keep it. The link in the address bar is the rest of the search, without it."
    : "This search had an image of yours, which is not kept: choose, paste or drop it again.";
}
