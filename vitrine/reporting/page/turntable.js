// Things seen from all around: a view at a time, turned by dragging or by a slider, with what is said under each.

const viewSide = () => (innerWidth > 640 ? 192 : 104); // pixels that a view is drawn with: of three, side by side
const turned = new Map(); // by figure, the view that was chosen last: redrawing does not turn it back

const hasTurntable = (figure) => isOfKind(figure, "turntable");

function turntable(figure, title = "") {
  askForNow([figure]);
  const versions = runs.flatMap((run) => run.figures.get(figure.id)?.versions ?? []);
  const count = Math.max(1, ...versions.map((version) => version.turntable?.views.length ?? 0));
  const place = el("div", { class: "turned" });
  const slider = el("input", { type: "range", min: "0", max: String(count - 1), step: "1", "aria-label": `View of ${figure.key}`, oninput: () => turn(Number(slider.value)) });
  const output = el("output");
  let stands = [];
  const turn = (to) => {
    const view = ((to % count) + count) % count;
    turned.set(figure.id, view);
    slider.value = String(view);
    const said = stands.map((stand) => stand.turn(view, count)).filter(Boolean);
    output.textContent = said[0]?.view ?? "";
    slider.setAttribute("aria-valuetext", said.map((of) => `${of.view}: ${of.text}`).join("; "));
  };
  watch(() => {
    const wanted = columns();
    for (const column of wanted) versionAt(column.run, figure.id, column.step)?.ask?.();
    stands = wanted.map((column) => turntableStand(versionAt(column.run, figure.id, column.step), column, wanted.length > 1));
    place.replaceChildren(...stands.map((stand) => stand.element));
    turn(turned.get(figure.id) ?? 0);
  });
  dragTo(place, () => turned.get(figure.id) ?? 0, count, turn);
  return el("figure", { class: "picture turntable" }, title ? el("p", { class: "of" }, title) : null,
    el("div", { class: "turn" }, el("span", { class: "quiet", "aria-hidden": "true" }, "↺"), slider, el("span", { class: "quiet", "aria-hidden": "true" }, "↻"), output),
    place,
    el("details", { class: "more" }, el("summary", {}, "All views"), el("div", { class: "scrolled", role: "group", tabindex: "0", "aria-label": `All views of ${figure.key}` }, picture(figure))));
}

// a column: the same view of each row beside each other
function turntableStand(version, column, several) {
  const mark = el("p", { class: "mark" }, markOf(version, column, several));
  const stale = version && version.step !== column.at ? " stale" : "";
  if (!version?.turntable) return { element: el("div", { class: "stand cell none" }, mark), turn: () => null };
  const { views, rows, highlighted, first, size, pitch } = version.turntable;
  const times = viewSide() / Math.max(...size);
  const panes = Object.keys(rows).map((name, row) => {
    const image = el("img", { src: version.src, alt: "", draggable: false });
    const pane = el("div", { class: "view", role: "img" }, image);
    pane.style.width = `${size[0] * times}px`;
    pane.style.aspectRatio = `${size[0]} / ${size[1]}`;
    const verdict = el("p", { class: "verdict" });
    return { name, row, image, pane, verdict, element: el("div", {}, el("p", { class: "of" }, name), pane, verdict) };
  });
  const element = el("div", { class: `stand${stale}` }, mark, el("div", { class: "panes" }, ...panes.map((one) => one.element)), el("p", { class: "cell-caption" }, version.caption));
  return {
    element,
    turn(view, count) {
      const at = Math.floor((view * views.length) / count);
      for (const { name, row, image, pane, verdict } of panes) {
        image.style.transform = `scale(${times}) translate(${-first[0] - at * pitch[0]}px, ${-first[1] - row * pitch[1]}px)`;
        verdict.textContent = rows[name][at];
        verdict.classList.toggle("hit", highlighted[name][at]);
        pane.setAttribute("aria-label", `${name}, ${views[at]}: ${rows[name][at]}`);
      }
      return { view: views[at], text: panes.map(({ name }) => `${name} ${rows[name][at]}`).join(", ") };
    },
  };
}

// dragging across the width of a view is half a turn
function dragTo(place, current, count, turn) {
  let from = null;
  place.addEventListener("pointerdown", (event) => {
    const pane = event.target.closest(".view");
    if (!pane || event.button) return;
    event.preventDefault();
    place.setPointerCapture(event.pointerId);
    from = { x: event.clientX, view: current(), pitch: (2 * pane.clientWidth) / count };
  });
  place.addEventListener("pointermove", (event) => from && turn(from.view + Math.round((event.clientX - from.x) / from.pitch)));
  for (const end of ["pointerup", "pointercancel"]) place.addEventListener(end, () => { from = null; });
}
