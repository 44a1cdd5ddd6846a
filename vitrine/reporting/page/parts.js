// A large run: what its figures show lies in files beside the pictures, which are loaded when they are looked at.

const pieces = new Map(); // address -> what a file says: null while it is on its way
const pieceDigests = new WeakMap(); // its script -> the digest of what is wanted
let awaited = new Set(); // addresses without which the view that is shown was not drawn whole
let arrived = false; // whether something has come since the last drawing

function loadSplit(run) {
  const figures = new Map();
  for (const analysis of run.analyses) {
    const lists = analysis.lists.map(readList);
    const at = run.steps.filter((one) => one.analyses[analysis.name]).map(({ step, analyses: { [analysis.name]: part } }) => ({ step, ...lists[part.list], of: part.of }));
    analysis.figures.forEach((row, place) => {
      const figure = new SplitFigure(run, analysis, row, at, place);
      figures.set(figure.id, figure);
    });
  }
  return { ...run, figures, scalars: curvesOf(run), alarms: alarmsOf(run) };
}

class SplitFigure {
  #run; #at; #place; #found = null;

  constructor(run, analysis, [key, layer, unit, probe, label, width, height, kinds], at, place) {
    this.id = `${analysis.name}\n${key}`;
    this.analysis = analysis.name;
    this.title = analysis.title;
    this.technique = analysis;
    Object.assign(this, { key, layer, unit, probe, label, width, height, kinds });
    this.#run = run;
    this.#at = at;
    this.#place = place;
  }

  // made when they are asked for: of a large run there are millions
  get versions() {
    return (this.#found ??= this.#at.filter((one) => one.index.has(this.#place)).map((one) => new Version(this.#run, this, one, one.index.get(this.#place))));
  }
}

// what could not be loaded is tried again: it may have been written anew
function forgetMissing() {
  for (const [address, piece] of pieces) if (piece && !piece.length) pieces.delete(address);
}

// of a list, where each figure stands in it, and in which file
function readList({ places, chunks, suffix }) {
  const index = new Map();
  for (const [first, count] of places) for (let i = 0; i < count; i++) index.set(first + i, index.size);
  const starts = [];
  chunks.reduce((begin, size) => (starts.push(begin), begin + size), 0);
  return { index, starts, suffix };
}

class Version {
  constructor(run, figure, at, place) {
    Object.assign(this, { run, figure, step: at.step, of: at.of, suffix: at.suffix });
    const chunk = at.starts.findLastIndex((begin) => begin <= place);
    this.row = place - at.starts[chunk];
    this.address = `${fileOf(run, at.step, figure.analysis, `page.parts/${String(chunk).padStart(3, "0")}.js`)}?${at.of}`;
  }

  get told() {
    return pieces.get(this.address)?.[this.row];
  }

  get pending() {
    return !this.told;
  }

  // have it loaded; `redraw`: the view has to be drawn anew once it and all others asked for so are there
  ask(redraw = false) {
    if (redraw && !pieces.get(this.address)) awaited.add(this.address);
    if (pieces.has(this.address)) return;
    pieces.set(this.address, null);
    const script = document.createElement("script");
    script.src = this.address;
    pieceDigests.set(script, this);
    script.onload = script.onerror = () => {
      script.remove();
      if (!pieces.get(this.address)) pieces.set(this.address, []); // it is being written anew: gallery.js will say so
      pieceCame(this.address);
    };
    document.head.append(script);
  }

  get caption() {
    return this.told?.[0] ?? "";
  }

  get values() {
    return this.told?.[1] ?? {};
  }

  // the picture's address, of which all that a list shows ends alike it is known before the rest
  get src() {
    const file = this.told?.[2] ?? this.suffix ?? undefined;
    return file === undefined ? null : fileOf(this.run, this.step, this.figure.analysis, file.startsWith(".") ? this.figure.key + file : file);
  }

  get histogram() {
    return this.told?.[3]?.histogram;
  }

  get scores() {
    return this.told?.[3]?.scores;
  }

  get classes() {
    return this.told?.[3]?.classes;
  }

  get turntable() {
    return this.told?.[3]?.turntable;
  }

  get table() {
    return this.told?.[3]?.table;
  }
}

// a file of `page.parts` calls this
function pieceOf(digest, shown) {
  const version = pieceDigests.get(document.currentScript);
  if (version?.of === digest) pieces.set(version.address, shown);
}

function pieceCame(address) {
  const whole = awaited.delete(address) && !awaited.size;
  if (whole) arrived = "view";
  else if (arrived) return;
  else arrived = "pictures";
  requestAnimationFrame(() => {
    const what = arrived;
    arrived = false;
    if (what === "view") redraw();
    else if (what) for (const draw of watchers) draw();
  });
}

// have all that figures show at any time; the view is drawn anew when it is there
function askForAll(figures) {
  askForNow(figures); // what is looked at comes first
  for (const figure of figures) for (const run of runs) for (const version of run.figures.get(figure.id)?.versions ?? []) version.ask?.(true);
}

// have what figures show now: views are laid out by it
function askForNow(figures) {
  for (const figure of figures) for (const column of columns()) versionAt(column.run, figure.id, column.step)?.ask?.(true);
}

function curvesOf(run) {
  const curves = new Map();
  for (const { step, analyses } of run.steps) {
    for (const [name, part] of Object.entries(analyses)) {
      const keys = run.analyses.find((analysis) => analysis.name === name).keys[part.keys];
      keys.forEach((key, i) => {
        const value = part.scalars[i], id = `${name}\n${key}`;
        if (value === null) return;
        if (!curves.has(id)) curves.set(id, { analysis: name, key, points: [] });
        curves.get(id).points.push([step, value]);
      });
    }
  }
  return [...curves.values()];
}

function alarmsOf(run) {
  const title = (name) => run.analyses.find((analysis) => analysis.name === name).title;
  return run.steps.flatMap(({ step, analyses }) => Object.entries(analyses).flatMap(([name, part]) => part.alarms.map((text) => ({ step, title: title(name), text }))));
}
