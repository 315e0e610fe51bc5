/* The query: to the service, to the address bar and back */

function asked() {
  const parts = query.parts.map(({ kind, value, weight }) =>
    kind === "text" ? { text: value, weight } : kind === "image_id" ? { image_id: value, weight } : { image: uploads.get(value).base64, weight });
  const { words, without } = typed();
  return [...(words ? [{ text: words, weight: query.parts.length ? query.weight : 1 }] : []), ...parts, ...without.map((each) => ({ text: each, weight: LESS }))];
}

/* What is in the search box: words, and those that a minus takes away: tower -eiffel, or -"eiffel tower". */
const MINUS = /(?:^|\s)[-−](?:"([^"]+)"?|(\p{L}\S*))/gu;
function typed() {
  const without = [...query.text.matchAll(MINUS)].map((found) => (found[1] ?? found[2]).trim()).filter(Boolean);
  return { words: query.text.replace(MINUS, " ").replace(/\s+/g, " ").trim(), without };
}

/* Whether the collection has measured how many answers at such a score are right, for a search like this one. What is taken
   away lowers all scores: no caption was measured so. */
function isJudged(target) {
  const parts = asked(), way = target === "images" ? "text_to_image" : "image_to_text";
  return parts.length > 0 && Boolean(info?.confident_ways?.includes(way)) && parts.every((part) => (part.text !== undefined) === (target === "images") && part.weight > 0);
}

/* Where it has, what is less near than its cut-off is shown to those who ask for it: every search would end in it else. */
const cutOff = () => info.min_confidence ?? ENOUGH;
const leastOf = (target) => (isJudged(target) && !(query.far && target === "images") ? cutOff() : undefined);

/* An artifact of an earlier release has no words. */
const hasWords = () => Boolean(info?.modes?.includes("both"));

function request(target, offset, k, confidence) {
  const queries = asked(), body = { k, offset };
  if (Object.keys(query.where).length) body.where = query.where;
  if (!queries.length) return query.sort ? { ...body, sort: query.sort } : body;
  Object.assign(body, { queries, target });
  if (confidence !== undefined) body.min_confidence = confidence;
  else if (isJudged(target)) body.min_confidence = 0; // leaves nothing out, and has the nearest caption count
  if (query.dedupe && target === "images") body.dedupe = true;
  if (query.words && target === "images" && hasWords() && queries.some((part) => part.text !== undefined && part.weight > 0)) body.mode = "both";
  if (query.twins && target === "images") body.min_score = TWINS;
  return body;
}

/* Without words and images there is a look at the collection: what passes the filters, in an order. */
const isHome = () => !asked().length && !Object.keys(query.where).length && !query.sort;
const sortOf = (words) => (words ? { field: words.replace(/^-/, ""), descending: words.startsWith("-") } : null);

function address(image = shown) {
  const params = new URLSearchParams();
  if (query.text.trim()) params.set("q", query.text.trim());
  if (query.weight !== 1 && query.parts.length) params.set("weight", query.weight);
  for (const { kind, value, weight } of query.parts)
    if (kind !== "upload") params.append(kind === "text" ? "text" : "image", `${weight} ${value}`);
  if (Object.keys(query.where).length) params.set("where", JSON.stringify(query.where));
  if (query.sort) params.set("sort", `${query.sort.descending ? "-" : ""}${query.sort.field}`);
  if (query.dedupe) params.set("fold", "1");
  if (query.words) params.set("words", "1");
  if (query.twins) params.set("twins", "1");
  if (query.far) params.set("far", "1");
  if (image !== null) params.set("show", image);
  const search = params.toString();
  return location.pathname + (search ? `?${search}` : "");
}

/* An entry of the history has what its address cannot have: an image of one's own, and how far down one was. */
function remember(mode, extra = {}) {
  if (leaving) { // an entry that is made while the browser goes back is lost: it is made when it has
    unwritten = { mode: unwritten?.mode === "push" ? "push" : mode, extra };
    return;
  }
  const at = place ?? { y: scrollY, count: results.length };
  history[mode === "push" ? "pushState" : "replaceState"]({ parts: query.parts, ...at, ...extra }, "", address());
  const words = query.text.trim() || (query.parts.length ? "images" : "");
  document.title = words ? `${shorten(words, 60)} – bento-clip` : "bento-clip: search images";
}

function recall(kept) {
  const params = new URLSearchParams(location.search);
  const weight = (given) => (Number.isFinite(Number(given)) && Number(given) ? Math.max(-HEAVIEST, Math.min(HEAVIEST, Number(given))) : 1);
  const parts = [["text", "text"], ["image", "image_id"]].flatMap(([name, kind]) =>
    params.getAll(name).map((given) => /^(\S+) ([^]+)$/.exec(given)).filter(Boolean).map((m) => ({ kind, value: m[2], weight: weight(m[1]) })));
  let where = {};
  try {
    const given = JSON.parse(params.get("where") || "{}");
    if (given && typeof given === "object" && !Array.isArray(given)) where = given;
  } catch { /* a link that this page did not make */ }
  const before = Array.isArray(kept?.parts) ? kept.parts : parts;
  lost = before.some((part) => part.kind === "upload" && !uploads.has(part.value));
  query = {
    text: [...(params.get("q") || "")].slice(0, 1000).join(""), weight: weight(params.get("weight") ?? 1), where, dedupe: params.get("fold") === "1", words: params.get("words") === "1", twins: params.get("twins") === "1", far: params.get("far") === "1", sort: sortOf(params.get("sort") ?? ""),
    parts: before.filter((part) => part.kind !== "upload" || uploads.has(part.value)),
  };
  shown = params.get("show");
  place = kept?.y > 0 ? { y: kept.y, count: Math.min(Number(kept.count) || 0, MOST_AGAIN) } : null;
  text.value = query.text;
}

function change(edit, { typing = false } = {}) {
  const before = JSON.stringify([query.text, query.parts]);
  edit();
  if (JSON.stringify([query.text, query.parts]) !== before) query.far = false;
  lost = false;
  shown = null;
  place = { y: 0, count: 0 };
  const now = Date.now();
  remember(typing && now - typedAt < BURST_MS ? "replace" : "push");
  place = null;
  typedAt = typing ? now : 0;
  drawQuery();
  busy(true);
  clearTimeout(timer);
  timer = setTimeout(search, typing ? DEBOUNCE_MS : 0);
}
