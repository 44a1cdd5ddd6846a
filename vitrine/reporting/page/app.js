// Where we are (the address), when we are (the slider), and what is drawn.

const state = { view: "overview", step: 0, beside: null, lost: null };
const MANY = 24; // layers or images in a line; more are in a menu
let playing = null;
let lastStamp = null; // of gallery.js
let unchanged = 0; // times in a row that it was the same

const link = (view, ...parts) => `#/${[view, ...parts].map((part) => encodeURIComponent(part)).join("/")}`;

function parseAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...parts] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const asked = new URLSearchParams(query);
  const at = (name) => (asked.has(name) && steps.length ? nearest(Number(asked.get(name)) || 0) : null);
  const place = { view: "overview", step: at("step"), beside: at("beside"), asked: asked.has("step"), lost: null };
  if (view === "layer" && layersOf().includes(parts[0])) Object.assign(place, { view, layer: parts[0] });
  if (view === "unit" && unitsOf(parts[0]).includes(Number(parts[1]))) Object.assign(place, { view, layer: parts[0], unit: Number(parts[1]) });
  if (view === "image" && probesOf().includes(Number(parts[0]))) Object.assign(place, { view, probe: Number(parts[0]) });
  if (view === "page" && pagesOf().includes(parts[0])) Object.assign(place, { view, page: parts[0] });
  if (view && place.view === "overview") place.lost = [view, ...parts];
  return place;
}

function path() {
  if (state.lost) return link(...state.lost); // it may come yet
  if (state.view === "layer") return link("layer", state.layer);
  if (state.view === "unit") return link("unit", state.layer, state.unit);
  if (state.view === "image") return link("image", state.probe);
  if (state.view === "page") return link("page", state.page);
  return "#/";
}

// the address holds the step as well; moving through time does not fill the browser's history
function updateAddress() {
  if (!steps.length) return;
  const beside = state.beside === null ? "" : `&beside=${state.beside}`;
  history.replaceState(null, "", `${path()}?step=${state.step}${beside}`);
}

function goTo(step) {
  if (step === undefined || step === state.step) return;
  state.step = step;
  updateAddress();
  for (const draw of watchers) draw();
  drawTime();
}

// pictures stand side by side: the cards are wider
function updateWidth() {
  document.body.classList.toggle("several", runs.length > 1 || state.beside !== null);
}

function move(by) {
  goTo(steps[Math.min(steps.length - 1, Math.max(0, steps.indexOf(state.step) + by))]);
}

function setBeside(step) {
  state.beside = step;
  updateAddress();
  for (const draw of watchers) draw();
  drawTime();
}

function play(on = playing === null) {
  clearInterval(playing);
  playing = null;
  if (on && steps.length > 1) {
    if (state.step === steps.at(-1)) goTo(steps[0]);
    playing = setInterval(() => (state.step === steps.at(-1) ? play(false) : move(1)), 700);
  }
  drawTime();
}

// drawing -----------------------------------------------------------------------------------------

// the view as it stands, with what has come meanwhile
function redraw() {
  const scroll = scrollY;
  draw();
  scrollTo(0, scroll);
}

function draw(focus = false) {
  watchers = [];
  awaited = new Set();
  const main = document.getElementById("main");
  if (!steps.length) {
    main.replaceChildren(heading(runs[0].name), el("p", { class: "quiet" }, "No checkpoint has been analysed yet. This page shows the first as soon as it is there."), facts(),
      curveSection() ?? "", testSection() ?? "");
  } else {
    main.replaceChildren(...views[state.view](state).filter((part) => part !== null));
  }
  drawTop();
  drawTime();
  const title = main.querySelector("h1");
  document.title = `${title.textContent} – ${runs.map((run) => run.name).join(" beside ")}`;
  if (focus) {
    title.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function drawTop() {
  const current = (on) => (on ? "page" : null);
  const layers = layersOf(), probes = probesOf();
  const list = (name, view, all, chosen) => (all.length > MANY ? menu(name, view, all, chosen) : all.length ? el("div", { class: "group" }, el("span", { class: "quiet", "aria-hidden": "true" }, name),
    ...all.map((one) => el("a", { href: link(view, one), "aria-current": current(one === chosen), "aria-label": `${view} ${one}` }, String(one)))) : null);
  const nav = el("nav", { "aria-label": "Views" },
    el("a", { href: "#/", class: "home", "aria-current": current(state.view === "overview") }, "Overview"),
    ...pagesOf().map((name) => el("a", { href: link("page", name), "aria-current": current(state.view === "page" && name === state.page) }, titleOf(name))),
    list("layers", "layer", layers, state.layer),
    list("images", "image", probes, state.view === "image" ? state.probe : null));
  const theme = el("button", { type: "button", class: "theme", "aria-label": "Light or dark", onclick: toggleTheme }, "◐");
  document.getElementById("top").replaceChildren(nav, theme);
  requestAnimationFrame(() => { // with the view's own layout, not one more before it
    const here = nav.querySelector("[aria-current]");
    if (here) nav.scrollLeft = here.offsetLeft - (nav.clientWidth - here.offsetWidth) / 2;
  });
}

// what is too much for a line: a list that opens, and is searched
function menu(name, view, all, chosen) {
  const entries = all.map((one) => el("a", { href: link(view, one), "aria-current": one === chosen ? "page" : null }, String(one)));
  const none = el("p", { class: "quiet", hidden: true }, "none is called so");
  const search = el("input", { type: "search", placeholder: `find one of ${all.length}`, "aria-label": `Find one of the ${name}`, oninput: () => {
    const wanted = search.value.trim().toLowerCase();
    for (const entry of entries) entry.hidden = !entry.textContent.toLowerCase().includes(wanted);
    none.hidden = entries.some((entry) => !entry.hidden);
  }, onkeydown: (event) => {
    const first = entries.find((entry) => !entry.hidden);
    if (event.key === "Enter" && first) first.click();
  } });
  const shown = el("div", { class: "list" }, ...entries, none);
  const box = el("details", { class: "menu", onkeydown: (event) => {
    if (event.key !== "Escape" || !box.open) return;
    box.open = false;
    box.firstChild.focus();
  }, ontoggle: () => {
    if (!box.open) return;
    for (const other of document.querySelectorAll("details.menu[open]")) if (other !== box) other.open = false;
    const around = box.firstChild.getBoundingClientRect();
    panel.style.left = `${Math.max(8, Math.min(around.left, innerWidth - panel.offsetWidth - 8))}px`;
    panel.style.top = `${around.bottom}px`;
    entries.find((entry) => entry.hasAttribute("aria-current"))?.scrollIntoView({ block: "center" });
    search.focus({ preventScroll: true });
  } });
  const panel = el("div", { class: "panel" }, search, shown);
  box.append(el("summary", { "aria-current": chosen !== undefined && chosen !== null ? "page" : null },
    `${all.length} ${name}${chosen === undefined || chosen === null ? "" : `: ${chosen}`}`), panel);
  return box;
}

addEventListener("pointerdown", (event) => {
  for (const box of document.querySelectorAll("details.menu[open]")) if (!box.contains(event.target)) box.open = false;
});

function drawTime() {
  updateWidth();
  const place = document.getElementById("time");
  place.hidden = steps.length === 0;
  if (!place.firstChild) buildTime(place);
  const { slider, ticks, output, beside, button } = place.parts;
  slider.max = String(Math.max(0, steps.length - 1));
  slider.value = String(steps.indexOf(state.step));
  slider.disabled = steps.length < 2;
  slider.setAttribute("aria-valuetext", `step ${state.step}`);
  output.textContent = `step ${state.step}`;
  button.textContent = playing === null ? "▶" : "❚❚";
  button.setAttribute("aria-label", playing === null ? "Play through time" : "Pause");
  button.disabled = steps.length < 2;
  if (ticks.childElementCount !== steps.length) ticks.replaceChildren(...steps.map(() => el("i")));
  [...ticks.children].forEach((tick, i) => {
    tick.className = steps[i] === state.step ? "now" : steps[i] === state.beside ? "then" : "";
  });
  const options = JSON.stringify(steps);
  if (beside.dataset.steps !== options) {
    beside.dataset.steps = options;
    beside.replaceChildren(el("option", { value: "" }, "nothing"), ...steps.map((step) => el("option", { value: String(step) }, `step ${step}`)));
  }
  beside.value = state.beside === null ? "" : String(state.beside);
}

function buildTime(place) {
  const slider = el("input", { type: "range", min: "0", step: "1", "aria-label": "Checkpoint", oninput: () => goTo(steps[Number(slider.value)]) });
  const ticks = el("div", { class: "ticks", "aria-hidden": "true" });
  const output = el("output", { class: "step" });
  const button = el("button", { type: "button", onclick: () => play() });
  const beside = el("select", { "aria-label": "beside", onchange: () => setBeside(beside.value === "" ? null : Number(beside.value)) });
  place.parts = { slider, ticks, output, beside, button };
  place.append(button, output, el("div", { class: "track" }, slider, ticks));
  if (runs.length === 1) place.append(el("label", { class: "beside" }, el("span", {}, "beside"), beside));
}

function toggleTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  remember("theme", dark ? "light" : "dark");
}

// events ------------------------------------------------------------------------------------------

function navigate(focus) {
  const was = { ...state };
  const place = parseAddress();
  delete state.layer;
  Object.assign(state, place);
  if (!place.asked) {
    // a link within the page keeps the time
    state.step = steps.includes(was.step) ? was.step : steps.at(-1) ?? 0;
    state.beside = place.beside ?? was.beside;
  }
  if (runs.length > 1 || state.beside === state.step) state.beside = null;
  updateAddress();
  draw(focus);
}

addEventListener("hashchange", () => navigate(true));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("select, textarea, input:not([type=checkbox], [type=radio])")) return;
  const sibling = (rel) => document.querySelector(`.siblings a[rel=${rel}]`)?.click();
  const keys = {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => goTo(steps[0]), End: () => goTo(steps.at(-1)),
    j: () => sibling("next"), k: () => sibling("prev"),
  };
  if (!event.target.matches?.("button, a, summary, input")) keys[" "] = () => play();
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

// gallery.js calls this; while training runs it is loaded again now and then, and later checkpoints appear
globalThis.vitrine = (gallery) => {
  unchanged = gallery.stamp === lastStamp ? unchanged + 1 : 0;
  if (gallery.stamp === lastStamp) return;
  const empty = lastStamp === null || !steps.length;
  const newest = !empty && state.step === steps.at(-1);
  lastStamp = gallery.stamp;
  load(gallery);
  if (empty) {
    navigate(false);
  } else {
    const scroll = scrollY;
    if (newest || !steps.includes(state.step)) state.step = steps.at(-1) ?? 0;
    updateAddress();
    if (state.lost) navigate(false);
    else draw();
    scrollTo(0, scroll);
  }
};

globalThis.vitrine.part = pieceOf;

function poll() {
  const script = document.createElement("script");
  script.src = `gallery.js?${Date.now()}`;
  script.onload = script.onerror = () => {
    script.remove();
    setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", poll, { once: true }) : poll()), Math.min(60, 3 * 1.3 ** unchanged) * 1000);
  };
  document.head.append(script);
}

document.documentElement.dataset.theme = recall("theme", "");
poll();
