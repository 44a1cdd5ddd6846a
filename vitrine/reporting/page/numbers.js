// What pictures cannot say: their numbers now and over time, how a unit's activations are spread, of which classes
// its best images are.

const FEW = 8; // rows of numbers that are shown without being asked for
const TOLD = ["top_class", "lowest", "least", "distribution", "classes"]; // by captions and drawings

// a table: a row a number, a column a checkpoint or run, and how it went
function numbers(figures) {
  const rows = [];
  for (const figure of figures) {
    const versions = (run) => run.figures.get(figure.id)?.versions ?? [];
    const names = new Set(runs.flatMap((run) => versions(run).flatMap((version) => Object.keys(version.values))));
    for (const name of names) {
      if (TOLD.includes(name)) continue;
      const lines = runs.map((run) => versions(run).filter((v) => typeof v.values[name] === "number").map((v) => [v.step, v.values[name]]));
      if (!lines.some((points) => points.length)) continue;
      const what = [variantOf(figure) || subjectOf(figure), words(name)].filter(Boolean).join(", ");
      rows.push({ figure, name, head: el("th", { scope: "row" }, what), spark: el("td", {}, sparkline(lines)) });
    }
  }
  if (!rows.length) return null;
  const head = el("thead"), body = el("tbody");
  watch(() => {
    const shown = columns();
    head.replaceChildren(...(shown.length > 1 ? [el("tr", {}, el("td"), ...shown.map((column) => el("th", { scope: "col" }, column.name)), el("td"))] : []));
    body.replaceChildren(...rows.map(({ figure, name, head: what, spark }) => el("tr", {}, what,
      ...shown.map((column) => {
        const version = versionAt(column.run, figure.id, column.step);
        return el("td", { class: !version || version.step === column.at ? "value" : "value stale" }, number(version?.values[name]));
      }), spark)));
  });
  const table = el("table", { class: "numbers" }, head, body);
  return rows.length <= FEW ? table : el("details", {}, el("summary", {}, `${rows.length} numbers`), table);
}

// how often each of a unit's largest activations comes on the data set, a line a column
function distribution(figure) {
  if (!runs.some((run) => run.figures.get(figure.id)?.versions.some((v) => v.values.distribution))) return null;
  const place = el("div", { class: "spread" });
  watch(() => {
    const shown = columns().map((column) => ({ ...column, values: versionAt(column.run, figure.id, column.step)?.values ?? {} }))
      .filter((column) => column.values.distribution);
    const low = Math.min(...shown.map((one) => one.values.lowest)), high = Math.max(...shown.map((one) => one.values.activation));
    const most = Math.max(...shown.flatMap((one) => one.values.distribution));
    const x = (value) => (high > low ? ((value - low) / (high - low)) * 300 : 150);
    const drawing = svg("svg", { viewBox: "0 0 300 84", preserveAspectRatio: "none", role: "img" });
    const told = shown.map((one, i) => {
      const { distribution: bins, lowest, activation, least } = one.values;
      const step = (x(activation) - x(lowest)) / bins.length;
      const y = (count) => (80 - (count / most) * 74).toFixed(1);
      const line = bins.map((count, bin) => `L${(x(lowest) + bin * step).toFixed(1)} ${y(count)}h${step.toFixed(2)}`).join("");
      const d = `M${x(lowest).toFixed(1)} 80${line}V80Z`;
      drawing.append(svg("path", { class: `c${i} area`, d }));
      if (least !== undefined) drawing.append(svg("line", { class: `c${i} reach`, x1: x(least), x2: x(activation), y1: 82.5, y2: 82.5 }));
      return `${shown.length > 1 ? `${one.name}: ` : ""}${number(lowest)} to ${number(activation)}`;
    });
    drawing.setAttribute("aria-label", `Distribution of the largest activation in an image: ${told.join("; ")}`);
    place.replaceChildren(el("p", { class: "of" }, "largest activation in each image; underlined: the images shown"), drawing,
      el("p", { class: "ends" }, el("span", {}, number(low)), el("span", {}, number(high))), ...legend(shown));
  });
  return place;
}

// of which classes a unit's best images are
function classMix(figure) {
  if (!runs.some((run) => run.figures.get(figure.id)?.versions.some((v) => v.values.classes))) return null;
  const place = el("div", { class: "mix" });
  watch(() => {
    const shown = columns().map((column) => ({ ...column, classes: versionAt(column.run, figure.id, column.step)?.values.classes ?? {} }));
    const total = (name) => shown.reduce((sum, one) => sum + (one.classes[name] ?? 0), 0);
    const names = [...new Set(shown.flatMap((one) => Object.keys(one.classes)))].sort((a, b) => total(b) - total(a));
    const bar = (share, i) => {
      const fill = el("i", { class: `c${i}` });
      fill.style.width = `${100 * share}%`;
      return el("div", { class: "bar" }, el("span", {}, fill), el("b", {}, percent(share)));
    };
    place.replaceChildren(el("p", { class: "of" }, "classes of the images shown"),
      el("dl", {}, ...names.map((name) => el("div", {}, el("dt", {}, name), el("dd", {}, ...shown.map((one, i) => bar(one.classes[name] ?? 0, i)))))),
      ...legend(shown));
  });
  return place;
}

function legend(shown) {
  return shown.length > 1 ? [el("ul", { class: "legend" }, ...shown.map((one, i) => el("li", {}, el("i", { class: `c${i}` }), one.name)))] : [];
}

// how sure the network is of an image's classes, over time
function confidences(figures) {
  const lines = [];
  for (const [name, told] of [["confidence", ""], ["probability", ""], ["adversarial/true", "under attack"]]) {
    if (name === "probability" && lines.length) continue; // the same, of another technique
    for (const figure of figures) {
      runs.forEach((run) => {
        const versions = run.figures.get(figure.id)?.versions ?? [];
        const points = versions.filter((v) => typeof v.values[name] === "number").map((v) => [v.step, v.values[name]]);
        const of = [runs.length > 1 ? run.name : "", subjectOf(figure), told].filter(Boolean).join(" ");
        if (points.length) lines.push({ name: of, points, steps: run.steps.map((at) => at.step) });
      });
    }
  }
  return lines.length ? chart("confidence", lines, goTo, [0, 1]) : null;
}
