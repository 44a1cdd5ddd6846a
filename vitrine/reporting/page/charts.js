// Curves as small drawings, checkpoints marked, the chosen one as a line; the legend shows the values there.

const WIDTH = 300, HEIGHT = 90, MOST_LINES = 12;

// lines: [{ name, points: [[step, value], ...], steps }], steps: the checkpoints at which alone there is a value now;
// `choose(step)` is called where the drawing is clicked; `span`: the values from bottom to top
function chart(title, lines, choose, span = null) {
  const xs = lines.flatMap((line) => line.points.map((point) => point[0])).concat(steps);
  const ys = lines.flatMap((line) => line.points.map((point) => point[1]));
  const [left, right] = [extent(xs)[0], extent(xs)[1]];
  const [low, high] = span ?? extent(ys);
  const x = (step) => (right > left ? ((step - left) / (right - left)) * WIDTH : WIDTH / 2);
  const y = (value) => (high > low ? HEIGHT - 8 - ((value - low) / (high - low)) * (HEIGHT - 14) : HEIGHT / 2);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  drawing.setAttribute("aria-label", `${title}: ${lines.map((line) => line.name).join(", ")}, ${number(low)} to ${number(high)}`);
  for (const step of steps) drawing.append(svg("line", { class: "mark", x1: x(step), x2: x(step), y1: HEIGHT - 5, y2: HEIGHT }));
  const now = svg("line", { class: "now", y1: 0, y2: HEIGHT });
  const then = svg("line", { class: "then", y1: 0, y2: HEIGHT });
  drawing.append(now, then);
  const many = lines.length > MOST_LINES;
  lines.forEach((line, i) => {
    const d = line.points.map(([step, value], j) => `${j ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const colour = many ? "c-many" : `c${i % MOST_LINES}`;
    const alone = line.points.length === 1;
    drawing.append(svg("path", { class: alone ? `${colour} alone` : colour, d: alone ? `${d}l.01 0` : d }));
  });
  drawing.addEventListener("click", (event) => {
    const box = drawing.getBoundingClientRect();
    choose(nearest(left + ((event.clientX - box.left) / box.width) * (right - left)));
  });
  const entries = many ? [] : lines.map((line, i) => {
    const value = el("b");
    watch(() => {
      const point = line.points.findLast(([step]) => step <= state.step);
      const there = point && (!line.steps || point[0] === line.steps.findLast((step) => step <= state.step));
      value.textContent = number(there ? point[1] : null);
    });
    return el("li", {}, el("i", { class: `c${i % MOST_LINES}` }), `${line.name} `, value);
  });
  watch(() => {
    now.setAttribute("x1", x(state.step));
    now.setAttribute("x2", x(state.step));
    then.setAttribute("visibility", state.beside === null ? "hidden" : "visible");
    then.setAttribute("x1", x(state.beside ?? state.step));
    then.setAttribute("x2", x(state.beside ?? state.step));
  });
  return el("figure", { class: "chart" },
    el("figcaption", {}, el("span", {}, title), el("span", { class: "range" }, low === high ? number(low) : `${number(low)} – ${number(high)}`)),
    drawing,
    many ? el("p", { class: "quiet" }, `${lines.length} curves`) : el("ul", { class: "legend" }, ...entries));
}

// how one number of a figure went over checkpoints, a line a run
function sparkline(lines) {
  const points = lines.flat();
  const [left, right] = extent(points.map((point) => point[0]));
  const [low, high] = extent(points.map((point) => point[1]));
  const at = ([step, value]) => `${right > left ? (((step - left) / (right - left)) * 96 + 2).toFixed(1) : 50} ${high > low ? (18 - ((value - low) / (high - low)) * 16).toFixed(1) : 10}`;
  const drawing = svg("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
  lines.forEach((line, i) => line.length && drawing.append(svg("path", { class: `c${i}`, d: `M${line.map(at).join("L")}l.01 0` })));
  return drawing;
}

// charts of what training and analyses logged: "train/loss" and "val/loss" share one, so do all "dead_units/..."
function curves(technique = null) {
  const lines = [], elsewhere = pagesOf(), first = headlines();
  for (const run of runs) {
    const of = (name) => (runs.length > 1 ? `${run.name} ${name}`.trim() : name);
    for (const [name, points] of technique ? [] : Object.entries(run.metrics)) {
      const [chart, line] = CHARTS[name] ?? (/^lr-/.test(name) ? ["learning rate", name] : splitName(name));
      lines.push({ chart, name: of(line), points });
    }
    for (const { analysis, key, points } of run.scalars) {
      if (technique ? analysis !== technique : elsewhere.includes(analysis) && !first.includes(key.split("/")[0])) continue;
      const [begin, ...rest] = key.split("/");
      const subject = rest.length > 1 ? `, ${rest.shift()}` : ""; // "pointing_game/sign/gradient": on the sign
      lines.push({ chart: begin + subject, name: of(words(rest.join(" ") || begin)), points });
    }
  }
  const rank = (name) => first.findIndex((one) => name.startsWith(one)) >>> 0; // none: last
  return groupBy(lines, (line) => line.chart).sort((a, b) => rank(a[0]) - rank(b[0]));
}

// the charts shown first; the others are folded away
const headlines = () => ["accuracy", "loss", "recall", "precision", "average_precision", ...new Set(runs.flatMap((run) => run.analyses.flatMap((analysis) => analysis.headlines)))];
const CHARTS = { "val/robust_accuracy": ["accuracy", "val, under attack"], "val/clean_accuracy_subset": ["accuracy", "val, the same images unattacked"],
  "val/macro_accuracy": ["mean of classes", "val, accuracy"], "val/macro_f1": ["mean of classes", "val, F1"], "val/top5_accuracy": ["top-5 accuracy", "val"] };

// "val/loss" and "val_loss": ["loss", "val"]
function splitName(name) {
  const plain = /^(train|val|valid|validation|test)_(.+)$/.exec(name);
  if (plain) return [plain[2] === "acc" ? "accuracy" : words(plain[2]), plain[1]];
  const [first, second, ...rest] = name.split("/");
  return [second ?? first, second ? [first, ...rest].join(" ") : first];
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 0] : [low, high];
}

function nearest(step) {
  return steps.reduce((best, other) => (Math.abs(other - step) < Math.abs(best - step) ? other : best), steps[0]);
}
