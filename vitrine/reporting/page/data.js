// The content of gallery.js, indexed: runs, figures by key, versions by step.

let runs = [];
let steps = []; // every run's checkpoints, ascending

function load(gallery) {
  forgetFigures();
  forgetMissing();
  runs = gallery.runs.map((run) => (run.split ? loadSplit(run) : loadWhole(run)));
  steps = [...new Set(runs.flatMap((run) => run.steps.map((at) => at.step)))].sort((a, b) => a - b);
}

function loadWhole(run) {
  const figures = new Map(); // "analysis\nkey" -> figure
  for (const analysis of run.analyses) {
    const own = analysis.figures.map(([key, layer, unit, probe, label, file, width, height]) => ({
      id: `${analysis.name}\n${key}`, analysis: analysis.name, title: analysis.title, technique: analysis,
      key, layer, unit, probe, label, file, width, height, versions: [],
    }));
    for (const step of Object.keys(analysis.at).map(Number).sort((a, b) => a - b)) {
      for (const [place, caption, values, file, drawn] of analysis.at[step]) {
        const figure = own[place];
        if (drawn?.table) fillColumns(drawn.table.columns, figure.versions.at(-1)?.table?.columns);
        figure.versions.push({ step, caption, values, ...drawn, src: fileOf(run, step, analysis.name, file ?? figure.file) });
      }
    }
    for (const figure of own) {
      figure.kinds = ["table", "turntable"].filter((kind) => figure.versions.some((version) => version[kind]));
      figures.set(figure.id, figure);
    }
  }
  return { ...run, figures };
}

// columns that are as at the step before are not repeated
function fillColumns(columns, before) {
  for (const heading of Object.keys(columns)) columns[heading] ??= before[heading];
}

// the address of a file of an analysis at a step
function fileOf(run, step, analysis, file) {
  return address(`${run.base}analysis/step=${String(step).padStart(8, "0")}/${analysis}/${file}`);
}

function address(path) {
  return path.split("/").map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");
}

// whether a figure of any run shows such a thing at any time
const isOfKind = (figure, kind) => runs.some((run) => run.figures.get(figure.id)?.kinds.includes(kind));

// every figure of any run for which `wanted` holds, once, in the order in which analyses yield them
const figuresWhere = (wanted) => (figuresKnown ??= distinctFigures()).filter(wanted);

function distinctFigures() {
  if (runs.length === 1) return [...runs[0].figures.values()];
  const found = new Map();
  for (const run of runs) for (const figure of run.figures.values()) if (!found.has(figure.id)) found.set(figure.id, figure);
  return [...found.values()];
}

// the version of a figure at a step of a run: its own, else its last one before
function versionAt(run, id, step) {
  const versions = run.figures.get(id)?.versions ?? [];
  return versions.findLast((version) => version.step <= step) ?? null;
}

// the last checkpoint of a run up to a step: a run that has ended stands where it ended
function latest(run, step) {
  return run.steps.findLast((at) => at.step <= step)?.step ?? null;
}

function distinct(figures, what) {
  return [...new Set(figures.map((figure) => figure[what]).filter((value) => value !== null))];
}

let figuresKnown = null, layersKnown = null;
function forgetFigures() {
  figuresKnown = layersKnown = null;
}

function layersOf() {
  return (layersKnown ??= findLayers());
}

function findLayers() {
  // the analysis with the most layers knows their order best
  const all = figuresWhere((figure) => figure.layer !== null);
  const lists = groupBy(all, (figure) => figure.analysis).map(([, figures]) => distinct(figures, "layer"));
  lists.sort((a, b) => b.length - a.length);
  const layers = lists.shift() ?? [];
  for (const layer of lists.flat()) {
    if (layers.includes(layer)) continue;
    const parent = layers.findIndex((other) => layer.startsWith(`${other}.`));
    const end = all.find((figure) => figure.layer === layer).technique.at_input ? 0 : layers.length;
    layers.splice(parent < 0 ? end : parent, 0, layer);
  }
  return layers;
}

const unitsOf = (layer) =>
  distinct(figuresWhere((f) => f.layer === layer && f.unit !== null && f.probe === null), "unit").sort((a, b) => a - b);
const probesOf = () => distinct(figuresWhere((figure) => figure.probe !== null), "probe").sort((a, b) => a - b);

// techniques that have a page of their own
const pagesOf = () => distinct(figuresWhere((figure) => figure.technique.own_page), "analysis");
const titleOf = (analysis) => figuresWhere((figure) => figure.analysis === analysis)[0].title;

function groupBy(items, by) {
  const groups = new Map();
  for (const item of items) {
    const name = by(item);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(item);
  }
  return [...groups];
}

// "layer3/unit-017/negative" is a variant of its unit, called "negative"
function variantOf(figure) {
  if (figure.unit === null || figure.layer === null || !figure.key.startsWith(`${figure.layer}/`)) return "";
  return figure.key.slice(figure.layer.length + 1).split("/").slice(1).join(" ");
}

// what a picture of a probe is of, beside the probe: "probe-004/cat" is of "cat"
function subjectOf(figure) {
  const rest = figure.key.split("/");
  return rest.length > 1 && /^probe/.test(rest[0]) ? rest.slice(1).join("/") : "";
}

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

const percent = (share) => `${Math.round(100 * share)} %`;
const words = (name) => name.replaceAll("_", " ").replaceAll("/", ", ");
