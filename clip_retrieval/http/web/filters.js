/* Filters */

function drawFilters() {
  $("filter").hidden = false;
  $("dedupe").checked = query.dedupe;
  $("words").checked = query.words;
  $("words-choice").hidden = !hasWords();
  recounts.length = 0;
  $("fields").replaceChildren(...fields.filter(({ name }) => name !== "split").map(field));
  recount();
}

/* The number beside a value says how many images one would see with it: of those that pass the filters of all other
   columns. It is asked for while the filters are seen, and while it is not known none is shown. */
let besides = null, counting = null;
const recounts = [], MOST_VALUES = 50;
const beside = (column) => besides?.get(column.name) ?? column;
const countOf = (column, value) => beside(column).values.find((each) => each.value === value)?.count ?? (beside(column).values.length < MOST_VALUES ? 0 : undefined);

async function recount(wait = 0) {
  counting?.abort();
  const mine = (counting = new AbortController()), filtered = Object.keys(query.where).length > 0;
  $("fields").classList.toggle("uncounted", filtered);
  if (filtered) $("fields").querySelectorAll("option").forEach((option) => { option.textContent = option.value; });
  if (filtered && $("filters").hidden) return;
  try {
    if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
    if (mine.signal.aborted) return;
    const answer = filtered ? (await ask(`fields?${new URLSearchParams({ where: JSON.stringify(query.where) })}`, { signal: mine.signal }))[0].fields : null;
    if (mine.signal.aborted) return;
    besides = answer && new Map(answer.map((column) => [column.name, column]));
  } catch {
    return; // a search with this filter says what is wrong with it, or that the service is busy
  }
  recounts.forEach((draw) => draw());
  $("fields").classList.remove("uncounted");
}

function setWhere(name, condition, typing = false) {
  change(() => { query.where = { ...query.where, [name]: condition }; if (condition === undefined) delete query.where[name]; }, { typing });
  recount(typing ? DEBOUNCE_MS : 0);
}

function field(column, at) {
  const { type, count, values } = column, set = query.where[column.name], id = `field-${at}`;
  const few = values.length && values.length <= CHOICES && values.reduce((sum, each) => sum + each.count, 0) >= count;
  return type === "number" ? numbers(column, set) : type === "boolean" ? truth(column, set, id)
    : isDate(values) ? dates(column, set) : few ? choices(column, set) : words(column, set, id);
}

const bounds = (name, ...nodes) => el("fieldset", {}, el("legend", {}, named(name)), el("div", { className: "range" }, nodes[0], "–", nodes[1]));

function numbers({ name, min, max }, set) {
  const bound = (side, hint, which) => el("input", { type: "number", step: "any", value: set?.[side] ?? "", placeholder: hint ?? "", "aria-label": `${named(name)} ${which}`,
    oninput: (event) => setBound(name, side, Number.isNaN(event.target.valueAsNumber) ? undefined : event.target.valueAsNumber) });
  return bounds(name, bound("gte", min, "from"), bound("lte", max, "to"));
}

function setBound(name, side, value) {
  const next = { ...(query.where[name] && typeof query.where[name] === "object" ? query.where[name] : {}), [side]: value };
  if (value === undefined) delete next[side];
  setWhere(name, Object.keys(next).length ? next : undefined, true);
}

/* Dates in a column of texts: days from one to another, both included. */
const DATE = /^\d{4}[-:]\d\d([-:]\d\d([T ]\d\d:\d\d.*)?)?$/;
const isDate = (values) => values.length > 0 && values.every(({ value }) => DATE.test(value));

function dayBeside(day, by) {
  const date = new Date(`${day}T12:00Z`);
  return Number.isNaN(date.getTime()) ? "" : new Date(date.getTime() + by * 86_400_000).toISOString().slice(0, 10);
}

function dates({ name }, set) {
  const bound = (side, by, which) => el("input", { type: "date", value: typeof set?.[side] === "string" ? dayBeside(set[side], by) : "", "aria-label": `${named(name)} ${which}`,
    onchange: (event) => setBound(name, side, event.target.value ? dayBeside(event.target.value, -by) : undefined) });
  return bounds(name, bound("after", 1, "from"), bound("before", -1, "to"));
}

function truth(column, set, id) {
  const { name } = column, answers = { yes: true, no: false };
  const select = el("select", { id, onchange: (event) => setWhere(name, answers[event.target.value]) },
    ...["any", "yes", "no"].map((value) => el("option", { value }, value)));
  select.value = set === true ? "yes" : set === false ? "no" : "any";
  recounts.push(() => [...select.options].slice(1).forEach((option) => { option.textContent = `${option.value} (${number(countOf(column, answers[option.value]))})`; }));
  return el("div", {}, el("label", { className: "name", htmlFor: id }, named(name)), select);
}

const pickedOf = (set) => new Set(Array.isArray(set?.in) ? set.in : set === undefined || typeof set === "object" ? [] : [set]);

function choice({ name }, value, picked, then = () => {}) {
  return el("label", { className: "choice" }, el("input", { type: "checkbox", checked: picked.has(value),
    onchange: (event) => { event.target.checked ? picked.add(value) : picked.delete(value); setWhere(name, picked.size ? { in: [...picked] } : undefined); then(); } }),
  shorten(String(value), 40), el("small"));
}

function showCount(label, count) {
  label.querySelector("small").textContent = count === undefined ? "" : number(count);
  label.classList.toggle("none", count === 0);
}

function choices(column, set) {
  const picked = pickedOf(set), labels = column.values.map(({ value }) => choice(column, value, picked));
  recounts.push(() => labels.forEach((label, i) => showCount(label, countOf(column, column.values[i].value))));
  return el("fieldset", {}, el("legend", {}, named(column.name)), el("div", { className: "choices" }, ...labels));
}

/* Many values: what is typed is looked for in them, and the frequent ones that have it can be ticked. */
function words(column, set, id) {
  const { name } = column, picked = pickedOf(set), among = el("div", { className: "choices" });
  let offered = [];
  const count = () => [...among.children].forEach((label, i) => showCount(label, countOf(column, offered[i])));
  const draw = (typed) => {
    const frequent = beside(column).values.filter(({ value, count: held }) => !picked.has(value) && (typed ? String(value).toLowerCase().includes(typed.toLowerCase()) : held > 1));
    offered = [...picked, ...frequent.slice(0, typed ? CHOICES : OFFERED).map(({ value }) => value)];
    among.replaceChildren(...offered.map((value) => choice(column, value, picked, () => { input.value = ""; draw(""); })));
    among.hidden = !offered.length;
    count();
  };
  // Nothing that has the focus is drawn anew.
  recounts.push(() => (among.contains(document.activeElement) ? count() : draw(input.value.trim())));
  const input = el("input", { id, type: "text", maxLength: 200, autocomplete: "off", placeholder: "contains …", value: typeof set?.contains === "string" ? set.contains : "",
    oninput: (event) => {
      const typed = event.target.value.trim();
      picked.clear();
      draw(typed);
      setWhere(name, typed ? { contains: typed } : undefined, true);
    } });
  draw(input.value);
  return el("div", {}, el("label", { className: "name", htmlFor: id }, named(name)), input, among);
}

function unfilter() { change(() => { query.where = {}; query.dedupe = query.words = false; }); drawFilters(); }

function toggleFilters(is) {
  $("filter").setAttribute("aria-expanded", is);
  $("filters").hidden = !is;
  if (is) recount();
}

/* A filter in words: a condition of a column, or a tree of them that a link brought. */
function described(condition) {
  if (condition === null) return "none";
  if (typeof condition !== "object") return condition === true ? "yes" : condition === false ? "no" : String(condition);
  const one = { in: (v) => v.map(described).join(", "), contains: (v) => `“${v}”`, gte: (v) => `from ${v}`, lte: (v) => `to ${v}`, gt: (v) => `over ${v}`, lt: (v) => `under ${v}`,
    after: (v) => (DAY.test(v) ? `from ${dayBeside(v, 1)}` : `after ${v}`), before: (v) => (DAY.test(v) ? `to ${dayBeside(v, -1)}` : `before ${v}`), during: (v) => String(v) };
  return Object.entries(condition).map(([name, value]) => (one[name] && (name !== "in" || Array.isArray(value)) ? one[name](value) : `${name} ${value}`)).join(" ");
}
const DAY = /^\d{4}-\d\d-\d\d$/;

const whole = (tree) => Object.entries(tree ?? {}).map(([name, condition]) => filterWords(name, condition)).join(" and ");
const OPERATORS = new Set(["in", "gt", "gte", "lt", "lte", "contains", "before", "after", "during"]);
function filterWords(name, condition) {
  const several = Array.isArray(condition) ? condition : name === "not" && condition && typeof condition === "object" && !Object.keys(condition).every((key) => OPERATORS.has(key)) ? [condition] : null; /* a field may be called not */
  if (!several) return `${named(name)}: ${described(condition)}`;
  const said = several.map(whole);
  return name === "not" ? `not ${said.join(", nor ")}` : said.map((each) => (said.length > 1 && / (and|or) /.test(each) ? `(${each})` : each)).join(name === "or" ? " or " : " and ");
}

/* The order of images that no words and no image rank. */
function drawOrder() {
  const now = query.sort ? `${query.sort.descending ? "-" : ""}${query.sort.field}` : "";
  $("order").hidden = asked().length > 0 || !fields.length;
  $("order").replaceChildren(el("option", { value: "" }, "Order: any"), ...fields.filter(({ name }) => name !== "split").flatMap(({ name }) =>
    [el("option", { value: name }, `${named(name)} ↑`), el("option", { value: `-${name}` }, `${named(name)} ↓`)]));
  $("order").value = now;
}
$("order").addEventListener("change", (event) => change(() => { query.sort = sortOf(event.target.value); }));
