/* Filters */

function drawFilters() {
  $("filter").hidden = false;
  $("dedupe").checked = query.dedupe;
  $("fields").replaceChildren(...fields.map(field));
}

function setWhere(name, condition, typing = false) {
  change(() => { query.where = { ...query.where, [name]: condition }; if (condition === undefined) delete query.where[name]; }, { typing });
}

function field({ name, type, count, values = [], min, max }, place) {
  const set = query.where[name], id = `field-${place}`;
  const label = (content) => el("label", { className: "name", htmlFor: id }, content);
  if (type === "number") {
    const bound = (side, hint, words) => el("input", { type: "number", step: "any", value: set?.[side] ?? "", placeholder: hint ?? "", "aria-label": `${name} ${words}`,
      oninput: (event) => {
        const next = { ...(query.where[name] && typeof query.where[name] === "object" ? query.where[name] : {}), [side]: event.target.valueAsNumber };
        if (Number.isNaN(next[side])) delete next[side];
        setWhere(name, Object.keys(next).length ? next : undefined, true);
      } });
    return el("fieldset", {}, el("legend", {}, name), el("div", { className: "range" }, bound("gte", min, "from"), "–", bound("lte", max, "to")));
  }
  if (type === "boolean") {
    const select = el("select", { id, onchange: (event) => setWhere(name, { yes: true, no: false }[event.target.value]) },
      ...["any", "yes", "no"].map((value) => el("option", { value }, value)));
    select.value = set === true ? "yes" : set === false ? "no" : "any";
    return el("div", {}, label(name), select);
  }
  if (values.length && values.length <= CHOICES && values.reduce((sum, each) => sum + each.count, 0) >= count) {
    const picked = new Set(Array.isArray(set?.in) ? set.in : set === undefined || typeof set === "object" ? [] : [set]);
    return el("fieldset", {}, el("legend", {}, name), el("div", { className: "choices" }, ...values.map(({ value, count: uses }) =>
      el("label", { className: "choice" }, el("input", { type: "checkbox", checked: picked.has(value),
        onchange: (event) => { event.target.checked ? picked.add(value) : picked.delete(value); setWhere(name, picked.size ? { in: [...picked] } : undefined); } }),
      shorten(String(value), 40), el("small", {}, number(uses))))));
  }
  return el("div", {}, label(name), el("input", { id, type: "text", maxLength: 200, autocomplete: "off", placeholder: "contains …",
    value: typeof set?.contains === "string" ? set.contains : "",
    oninput: (event) => setWhere(name, event.target.value.trim() ? { contains: event.target.value.trim() } : undefined, true) }));
}

function unfilter() { change(() => { query.where = {}; query.dedupe = false; }); drawFilters(); }

function toggleFilters(is) {
  $("filter").setAttribute("aria-expanded", is);
  $("filters").hidden = !is;
}
