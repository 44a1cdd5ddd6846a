// What pictures cannot say: their numbers now and over time, how a unit's activations are spread, of which classes
// its best images are.

const MOST_CLASSES = 12; // of a test that are shown without being asked for
const FEW = 8; // rows of numbers that are shown without being asked for

// a table: a row a number, a column a checkpoint or run, and how it went
function numbers(figures) {
  const rows = [];
  for (const figure of figures) {
    const versions = (run) => run.figures.get(figure.id)?.versions ?? [];
    const names = new Set(runs.flatMap((run) => versions(run).flatMap((version) => Object.keys(version.values))));
    for (const name of names) {
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

// how a figure's scores are spread over the whole data set, a line a column
function histogram(figure) {
  if (!runs.some((run) => run.figures.get(figure.id)?.versions.some((v) => v.histogram))) return null;
  const place = el("div", { class: "spread" });
  watch(() => {
    const shown = columns().map((column) => ({ ...column, version: versionAt(column.run, figure.id, column.step) }))
      .filter((column) => column.version?.histogram);
    if (!shown.length) return place.replaceChildren();
    const low = Math.min(...shown.map((one) => one.version.histogram.low)), high = Math.max(...shown.map((one) => one.version.histogram.high));
    const most = Math.max(...shown.flatMap((one) => one.version.histogram.heights));
    const x = (value) => (high > low ? ((value - low) / (high - low)) * 300 : 150);
    const drawing = svg("svg", { viewBox: "0 0 300 84", preserveAspectRatio: "none", role: "img" });
    const ranges = shown.map((one, i) => {
      const { histogram: own, scores } = one.version;
      const step = (x(own.high) - x(own.low)) / own.heights.length;
      const y = (height) => (80 - (height / most) * 74).toFixed(1);
      const line = own.heights.map((height, bin) => `L${(x(own.low) + bin * step).toFixed(1)} ${y(height)}h${step.toFixed(2)}`).join("");
      const d = `M${x(own.low).toFixed(1)} 80${line}V80Z`;
      drawing.append(svg("path", { class: `c${i} area`, d }));
      if (scores) drawing.append(svg("line", { class: `c${i} reach`, x1: x(scores[0]), x2: x(scores[1]), y1: 82.5, y2: 82.5 }));
      return `${shown.length > 1 ? `${one.name}: ` : ""}${number(own.low)} to ${number(own.high)}`;
    });
    drawing.setAttribute("aria-label", `Distribution of the largest activation in an image: ${ranges.join("; ")}`);
    place.replaceChildren(el("p", { class: "of" }, "largest activation in each image; underlined: the images shown"), drawing,
      el("p", { class: "ends" }, el("span", {}, number(low)), el("span", {}, number(high))), ...legend(shown));
  });
  return place;
}

// of which classes a unit's best images are
function classMix(figure) {
  if (!runs.some((run) => run.figures.get(figure.id)?.versions.some((v) => v.classes))) return null;
  const place = el("div", { class: "mix" });
  watch(() => {
    const shown = columns().map((column) => ({ ...column, classes: versionAt(column.run, figure.id, column.step)?.classes ?? {} }));
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
  for (const [, own] of groupBy(figures, (figure) => figure.analysis)) {
    for (const [name, condition] of Object.entries(own[0].technique.confidences)) {
      if (!condition && lines.length) continue; // the same, of another technique
      for (const figure of own) {
        runs.forEach((run) => {
          const versions = run.figures.get(figure.id)?.versions ?? [];
          const points = versions.filter((v) => typeof v.values[name] === "number").map((v) => [v.step, v.values[name]]);
          const of = [runs.length > 1 ? run.name : "", subjectOf(figure), condition].filter(Boolean).join(" ");
          if (points.length) lines.push({ name: of, points, steps: run.steps.map((at) => at.step) });
        });
      }
    }
  }
  return lines.length ? chart("confidence", lines, goTo, [0, 1]) : null;
}

// what was measured on the test split: of each run the latest, apart from the curves, as it belongs to no time chosen
function testSection() {
  const tested = runs.filter((run) => run.tests?.length);
  if (!tested.length) return null;
  const shown = tested.map((run) => ({ run, ...run.tests.at(-1) }));
  const names = [...new Set(shown.flatMap((one) => Object.keys(one.metrics)))];
  const value = (name, of) => (/accuracy|f1/.test(name) && typeof of === "number" ? `${(100 * of).toFixed(1)} %` : number(of));
  const title = (name) => words(name.replace(/^test\//, "")).replace(/^ece$/, "calibration error");
  const origin = (one) => `${one.checkpoint} at step ${one.step}${one.chosen && one.chosen !== "named" ? `, ${one.chosen}` : ""}; ${one.images.toLocaleString("en")} images; measured ${String(one.measured ?? "").replace("T", " ").slice(0, 16)}`;
  const several = (run) => new Set(run.tests.map((test) => test.weights_hash)).size;
  const once = ({ run }) => (several(run) > 1 ? `The latest of ${several(run)} checkpoints that were measured: for the best of several, this split is not held out.` : "");
  const numbers = (one) => el("dl", { class: "tested" }, ...names.filter((name) => name in one.metrics).map((name) => el("div", {}, el("dt", {}, title(name)), el("dd", {}, value(name, one.metrics[name])))));
  return section("Test split", el("p", { class: "quiet" }, "Images that no training, validation or analysis has read."),
    ...shown.map((one) => el("div", { class: "card test" },
      shown.length > 1 ? el("h3", {}, one.run.name) : null, numbers(one), el("p", { class: "of" }, origin(one)),
      once(one) ? el("p", { class: "of" }, once(one)) : null, testedClasses(one.classes ?? []))));
}

// the accuracy of each class, the worst first
function testedClasses(classes) {
  const worst = classes.toSorted((a, b) => a.accuracy - b.accuracy);
  if (!worst.length) return null;
  const row = ({ name, images, accuracy }) => {
    const fill = el("i", { class: "c0" });
    fill.style.width = `${100 * (accuracy ?? 0)}%`;
    return el("div", {}, el("dt", {}, name), el("dd", {}, el("div", { class: "bar" }, el("span", {}, fill), el("b", {}, percent(accuracy ?? 0))),
      el("span", { class: "quiet" }, `of ${images}`)));
  };
  const list = (some) => el("dl", {}, ...some.map(row));
  const rest = worst.slice(MOST_CLASSES);
  return el("div", { class: "mix by-class" }, el("p", { class: "of" }, "accuracy of each class, the lowest first"), list(worst.slice(0, MOST_CLASSES)),
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} more classes`), list(rest)) : null);
}
