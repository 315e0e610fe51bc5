/* Filters */

function drawFilters() {
  $("filter").hidden = false;
  $("dedupe").checked = query.dedupe;
  $("fields").replaceChildren(...fields.filter(({ name }) => name !== "split").map(field));
  drawCounts();
}

/* The counts are of the whole collection: beside a filter of another column they would mislead. */
function drawCounts() {
  for (const node of $("fields").children) node.classList.toggle("uncounted", Object.keys(query.where).some((name) => name !== node.dataset.name));
}

function setWhere(name, condition, typing = false) {
  change(() => { query.where = { ...query.where, [name]: condition }; if (condition === undefined) delete query.where[name]; }, { typing });
  drawCounts();
}

function field(column, at) {
  const { name, type, count, values = [] } = column, set = query.where[name], id = `field-${at}`;
  const few = values.length && values.length <= CHOICES && values.reduce((sum, each) => sum + each.count, 0) >= count;
  const node = type === "number" ? numbers(column, set) : type === "boolean" ? truth(column, set, id)
    : isDate(values) ? dates(column, set) : few ? choices(column, set) : words(column, set, id);
  node.dataset.name = name;
  return node;
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

function truth({ name }, set, id) {
  const select = el("select", { id, onchange: (event) => setWhere(name, { yes: true, no: false }[event.target.value]) },
    ...["any", "yes", "no"].map((value) => el("option", { value }, value)));
  select.value = set === true ? "yes" : set === false ? "no" : "any";
  return el("div", {}, el("label", { className: "name", htmlFor: id }, named(name)), select);
}

const pickedOf = (set) => new Set(Array.isArray(set?.in) ? set.in : set === undefined || typeof set === "object" ? [] : [set]);

function choice(name, { value, count }, picked, then = () => {}) {
  return el("label", { className: "choice" }, el("input", { type: "checkbox", checked: picked.has(value),
    onchange: (event) => { event.target.checked ? picked.add(value) : picked.delete(value); setWhere(name, picked.size ? { in: [...picked] } : undefined); then(); } }),
  shorten(String(value), 40), ...(count === undefined ? [] : [el("small", {}, number(count))]));
}

function choices({ name, values }, set) {
  const picked = pickedOf(set);
  return el("fieldset", {}, el("legend", {}, named(name)), el("div", { className: "choices" }, ...values.map((each) => choice(name, each, picked))));
}

/* Many values: what is typed is looked for in them, and the frequent ones that have it can be ticked. */
function words({ name, values }, set, id) {
  const picked = pickedOf(set), among = el("div", { className: "choices" });
  const draw = (typed) => {
    const counts = new Map(values.map(({ value, count }) => [value, count]));
    const frequent = values.filter(({ value, count }) => !picked.has(value) && (typed ? String(value).toLowerCase().includes(typed.toLowerCase()) : count > 1));
    among.replaceChildren(...[...[...picked].map((value) => ({ value, count: counts.get(value) })), ...frequent.slice(0, typed ? CHOICES : OFFERED)]
      .map((each) => choice(name, each, picked, () => { input.value = ""; draw(""); })));
    among.hidden = !among.childElementCount;
  };
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

function unfilter() { change(() => { query.where = {}; query.dedupe = false; }); drawFilters(); }

function toggleFilters(is) {
  $("filter").setAttribute("aria-expanded", is);
  $("filters").hidden = !is;
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
function filterWords(name, condition) {
  const several = Array.isArray(condition) ? condition : name === "not" && condition && typeof condition === "object" ? [condition] : null;
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
