// A figure's table: sorted by any column, searched by name; of many rows the first and the last, the rest on request.

const MOST_ROWS = 24;
const MOST_LOADED = 40; // checkpoints that are loaded, to show how a row went, without being asked for

const hasTable = (figure) => isOfKind(figure, "table");

// a figure's table; it fills itself when what it shows has been loaded
function dataTable(figure) {
  if (!hasTable(figure)) return null;
  const all = () => runs.flatMap((run) => run.figures.get(figure.id)?.versions ?? []);
  const away = () => all().filter((version) => version.pending);
  const long = away().length > MOST_LOADED;
  const ask = () => columns().forEach((column) => versionAt(column.run, figure.id, column.step)?.ask?.());
  ask(); // what is looked at comes first
  if (!long) all().forEach((version) => version.ask?.());
  const history = long ? loadHistory(all) : "";
  const place = el("div", { class: "table" });
  let fill = null;
  watch(() => {
    ask();
    const there = all().filter((version) => version.table);
    if (there.length) (fill ??= fillTable(figure, place, there[0].table, history))(there);
    if (long && !away().length) history.remove();
  });
  return place;
}

// lays out what is around a table; gives what draws it anew, given the versions that are loaded
function fillTable(figure, place, first, history) {
  const [name] = Object.keys(first.columns), count = first.columns[name].length;
  const shown = { sort: first.sort_by || name, descending: false, search: "", only: "", all: count <= MOST_ROWS };
  const tables = el("div", { class: "tables" }), choice = el("span");
  const search = el("input", { type: "search", placeholder: `find one of ${count}`, "aria-label": `Find a ${name}`, oninput: (event) => {
    shown.search = event.target.value;
    redraw();
  } });
  const redraw = () => tables.replaceChildren(...columns().map((column) => {
    const version = (column.run.figures.get(figure.id)?.versions ?? []).findLast((one) => one.step <= column.step && one.table);
    return version ? drawTable(column, version, historyOf(column.run, figure), shown, redraw) : null;
  }).filter(Boolean));
  place.append(...[count > MOST_ROWS / 2 ? search : null, first.filter_by ? choice : null, history, tables].filter(Boolean));
  let known = 0;
  return (there) => {
    if (first.filter_by && there.length !== known) choice.replaceChildren(filter(there, first.filter_by, shown, redraw));
    known = there.length;
    redraw();
  };
}

// a table of a long run: how its rows went is much to load
function loadHistory(all) {
  const button = el("button", { type: "button", class: "over-time", onclick: () => {
    button.disabled = true;
    button.textContent = "loading …";
    all().forEach((version) => version.ask?.());
  } }, `over time: load ${all().length} checkpoints`);
  return button;
}

// the versions of a figure, or none if not all of them are here
function historyOf(run, figure) {
  const all = run.figures.get(figure.id)?.versions ?? [];
  return all.some((version) => version.pending) ? [] : all.filter((version) => version.table);
}

// a choice of one of the names that a column has at any time
function filter(versions, heading, shown, redraw) {
  const names = [...new Set(versions.flatMap((version) => version.table.columns[heading] ?? []))].sort((a, b) => String(a).localeCompare(b, undefined, { numeric: true }));
  const choices = el("select", { onchange: () => {
    shown.only = choices.value;
    redraw();
  } }, el("option", { value: "" }, "any"), ...names.map((one) => el("option", { value: String(one) }, String(one))));
  choices.value = shown.only;
  return el("label", { class: "filter" }, el("span", {}, heading), choices);
}

function drawTable(column, version, versions, shown, redraw) {
  const { columns: content } = version.table;
  const headings = Object.keys(content), [name] = headings, rows = content[name].map((_, i) => i);
  const wanted = shown.search.trim().toLowerCase();
  const chosen = (i) => !shown.only || String(content[version.table.filter_by]?.[i]) === shown.only;
  const found = rows.filter((i) => chosen(i) && String(content[name][i]).toLowerCase().includes(wanted));
  const by = content[shown.sort] ?? content[name];
  const missing = (i) => by[i] === null || by[i] === ""; // last, whichever the direction
  const compare = (a, b) => missing(a) - missing(b) || (shown.descending ? -1 : 1) * (typeof by[a] === "string" ? by[a].localeCompare(by[b], undefined, { numeric: true }) : by[a] - by[b]) || a - b;
  const sorted = found.toSorted(compare);
  const cut = !shown.all && sorted.length > MOST_ROWS;
  const head = headings.map((heading) => {
    const sorting = heading === shown.sort;
    const click = () => {
      Object.assign(shown, sorting ? { descending: !shown.descending } : { sort: heading, descending: false });
      redraw();
    };
    const text = content[heading].some((value) => typeof value === "string");
    return el("th", { scope: "col", class: text ? "text" : null, "aria-sort": sorting ? (shown.descending ? "descending" : "ascending") : null },
      el("button", { type: "button", onclick: click }, heading, el("span", { "aria-hidden": "true" }, sorting ? (shown.descending ? " ↓" : " ↑") : "")));
  });
  const history = versions.length > 1 && version.table.sort_by;
  const row = (i) => el("tr", {}, ...headings.map((heading) => tableCell(heading === name, content[heading][i])),
    history ? el("td", {}, sparkline([rowHistory(versions, name, content[name], i, version.table.sort_by)])) : null);
  const more = el("tr", {}, el("td", { class: "more", colSpan: headings.length + (history ? 1 : 0) },
    el("button", { type: "button", onclick: () => { shown.all = true; redraw(); } }, `${sorted.length - MOST_ROWS} more`)));
  const half = MOST_ROWS / 2;
  const body = cut ? [...sorted.slice(0, half).map(row), more, ...sorted.slice(-half).map(row)] : sorted.map(row);
  return el("div", { class: "scrolled", role: "group", tabindex: "0", "aria-label": `Table of ${rows.length}, ${column.name}` },
    columns().length > 1 ? el("p", { class: "of" }, column.name) : null,
    el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, ...head, history ? el("th", { scope: "col" }, `${version.table.sort_by} over time`) : null)),
      el("tbody", {}, ...(body.length ? body : [el("tr", {}, el("td", { class: "quiet", colSpan: headings.length }, wanted ? `none is called “${shown.search.trim()}”` : "none"))]))));
}

function tableCell(heads, value) {
  if (heads) return el("th", { scope: "row", title: value.length > 40 ? value : null }, value.length > 40 ? `${value.slice(0, 24)}…${value.slice(-14)}` : value);
  return el("td", { class: typeof value === "string" ? "" : "value" }, typeof value === "string" ? value : number(value));
}

// how a row's number went, found by the row's name; of several rows of one name, by which of them it is
function rowHistory(versions, name, names, row, heading) {
  const before = names.slice(0, row).filter((one) => one === names[row]).length;
  const placeIn = (others) => {
    let place = others.indexOf(names[row]);
    for (let i = 0; i < before && place >= 0; i++) place = others.indexOf(names[row], place + 1);
    return place;
  };
  return versions.map(({ step, table: { columns: content } }) => [step, content[heading]?.[placeIn(content[name])]]).filter(([, value]) => typeof value === "number");
}
