// The views: overview, layer, unit, image, technique. Each gives its elements; `watch` keeps them at the time chosen.

const views = {
  overview() {
    const layers = layersOf();
    const probes = probesOf();
    const rest = figuresWhere((f) => f.layer === null && f.unit === null && f.probe === null);
    return [
      heading(runs.map((run) => run.name).join(" beside ")),
      failures(),
      ...runs.map(facts),
      section("Curves", el("div", { class: "charts", role: "group", "aria-label": "Curves", tabindex: "0" }, ...curves().map(([name, lines]) => chart(words(name), lines, goTo)))),
      layers.length ? section("Layers", ...layers.map(layerStrip)) : null,
      probes.length ? section("Images", probeStrip(probes)) : null,
      ...grouped(rest, (f) => f.analysis).map(([, figures]) =>
        section(figures[0].title, el("div", { class: "wide" }, ...figures.map((f) => picture(f, { caption: true }))))),
      el("p", { class: "quiet" }, "Keys: ← → move through time, space plays, j and k lead to the next and previous layer, unit or image."),
    ];
  },

  layer({ layer }) {
    const whole = figuresWhere((f) => f.layer === layer && f.unit === null && f.probe === null);
    const ofUnits = bestFirst(figuresWhere((f) => f.layer === layer && f.unit !== null && f.probe === null && !variantOf(f)));
    const ofProbes = figuresWhere((f) => f.layer === layer && f.probe !== null);
    const techniques = grouped(ofUnits, (f) => f.analysis).map(([name, figures]) => [name, figures[0].title]);
    const cards = unitsOf(layer).map((unit) => {
      const figures = ofUnits.filter((f) => f.unit === unit);
      return el("article", { class: "card" },
        el("h3", {}, el("a", { href: link("unit", layer, unit) }, `unit ${unit}`)),
        ...figures.map((f) => {
          const shown = picture(f, { href: link("unit", layer, unit) });
          shown.dataset.technique = f.analysis;
          return shown;
        }));
    });
    const grid = el("div", { class: "cards" }, ...cards);
    return [
      heading(layer, siblings("layer", layersOf(), layer)),
      ...grouped(whole, (f) => f.analysis).map(([, figures]) =>
        section(figures[0].title, el("div", { class: "wide" }, ...figures.map((f) => picture(f, { caption: true }))))),
      cards.length ? section(`${cards.length} units`, techniques.length > 1 ? choices(techniques, grid) : null, grid) : null,
      ...byTechnique(ofProbes, (f) => picture(f, { href: link("image", f.probe), caption: true })),
    ];
  },

  unit({ layer, unit }) {
    const own = bestFirst(figuresWhere((f) => f.layer === layer && f.unit === unit));
    const up = el("a", { href: link("layer", layer) }, layer);
    return [
      heading(["unit ", String(unit), " of ", up], siblings("unit", unitsOf(layer).map((u) => [layer, u]), [layer, unit])),
      ...grouped(own, (f) => f.analysis).map(([, figures]) => {
        const titles = figures.some(variantOf); // then each has one, and they stand in line
        return section(figures[0].title,
          el("div", { class: "wide" }, ...figures.map((f) => picture(f, { caption: true, large: true, title: variantOf(f) || (titles ? "the unit" : "") }))),
          numbers(figures),
          ...figures.map((f) => filmstrip(f, goTo)));
      }),
    ];
  },

  image({ probe }) {
    const own = figuresWhere((f) => f.probe === probe);
    return [
      heading(`image ${probe}`, siblings("image", probesOf(), probe)),
      ...grouped(own, (f) => f.analysis).map(([, figures]) =>
        section(figures[0].title,
          el("div", { class: "wide" }, ...figures.map((f) => picture(f, { caption: true, large: true, title: subjectOf(f) }))),
          numbers(figures),
          ...figures.map((f) => filmstrip(f, goTo)))),
    ];
  },
};

const BEST = ["features", "examples"]; // what shows a unit best, first
function bestFirst(figures) {
  const rank = (f) => (BEST.includes(f.analysis) ? BEST.indexOf(f.analysis) : BEST.length);
  return figures.toSorted((a, b) => rank(a) - rank(b));
}

function heading(words, beside = null) {
  const title = el("h1", { tabindex: "-1" }, ...[words].flat());
  return el("div", { class: "heading" }, title, beside);
}

function section(title, ...content) {
  if (content.every((part) => part === null)) return null;
  return el("section", {}, el("h2", {}, title), ...content);
}

function byTechnique(figures, draw) {
  return grouped(figures, (f) => f.analysis).map(([, own]) => section(own[0].title, el("div", { class: "wide" }, ...own.map(draw))));
}

// previous and next of the same kind
function siblings(view, all, current) {
  const same = (a, b) => [a].flat().join("\n") === [b].flat().join("\n");
  const place = all.findIndex((other) => same(other, current));
  const to = (other, words, rel) => (other === undefined
    ? el("span", { class: "off" }, words)
    : el("a", { href: link(view, ...[other].flat()), rel, "aria-label": `${rel} ${view}` }, words));
  return el("nav", { class: "siblings", "aria-label": `Other ${view}s` },
    to(all[place - 1], "↑", "prev"),
    el("span", { class: "quiet" }, `${place + 1} of ${all.length}`),
    to(all[place + 1], "↓", "next"));
}

function facts(run) {
  const duration = run.steps.flatMap((at) => Object.values(at.analyses)).reduce((sum, one) => sum + one.seconds, 0);
  const pairs = [...run.facts, ["checkpoints", String(run.steps.length)], ["analyses took", `${number(Math.round(duration))} s`]];
  return el("div", { class: "facts" },
    runs.length > 1 ? el("h2", {}, run.name) : null,
    el("dl", {}, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    run.settings ? el("details", {}, el("summary", {}, "All settings"), el("pre", { tabindex: "0" }, run.settings)) : null);
}

// analyses that failed at the step chosen
function failures() {
  const place = el("div");
  watch(() => {
    const failed = runs.flatMap((run) => Object.entries(run.steps.find((at) => at.step === state.step)?.analyses ?? {})
      .filter(([, outcome]) => outcome.error));
    place.replaceChildren(...failed.map(([name, { error }]) => el("details", { class: "failed" },
      el("summary", {}, `${name} failed at step ${state.step}: ${error.trim().split("\n").at(-1)}`), el("pre", { tabindex: "0" }, error))));
  });
  return place;
}

// a row of a layer's units, seen by the technique that shows them best
function layerStrip(layer) {
  const figures = figuresWhere((f) => f.layer === layer && f.probe === null && !variantOf(f));
  const ofUnits = bestFirst(figures.filter((f) => f.unit !== null));
  const shown = (ofUnits.length ? ofUnits : figures).filter((f, _, all) => f.analysis === all[0].analysis);
  const pictures = shown.map((f) => picture(f, f.unit === null ? { href: link("layer", layer) } : { href: link("unit", layer, f.unit), title: `unit ${f.unit}` }));
  return el("div", { class: "row" },
    el("h3", {}, el("a", { href: link("layer", layer) }, layer)),
    el("div", { class: "strip", role: "group", "aria-label": layer, tabindex: "0" }, ...pictures));
}

function probeStrip(probes) {
  const figures = figuresWhere((f) => f.probe !== null);
  const techniques = distinct(figures, "analysis");
  const best = ["cam"].find((name) => techniques.includes(name)) ?? techniques[0];
  const pictures = probes.map((probe) => {
    const own = figures.filter((f) => f.probe === probe);
    const shown = own.find((f) => f.analysis === best) ?? own[0];
    return picture(shown, { href: link("image", probe), title: `image ${probe}` });
  });
  return el("div", { class: "strip", role: "group", "aria-label": "images", tabindex: "0" }, ...pictures);
}

// which techniques the cards show; remembered
function choices(techniques, grid) {
  const hidden = new Set(remembered("hidden", "").split(",").filter(Boolean));
  const apply = () => {
    for (const shown of grid.querySelectorAll("[data-technique]")) shown.hidden = hidden.has(shown.dataset.technique);
  };
  const boxes = techniques.map(([name, title]) => el("label", { class: "choice" },
    el("input", {
      type: "checkbox", checked: !hidden.has(name),
      onchange: (event) => {
        if (event.target.checked) hidden.delete(name);
        else hidden.add(name);
        remember("hidden", [...hidden].join(","));
        apply();
      },
    }), title));
  apply();
  return el("fieldset", { class: "choices" }, el("legend", {}, "Show"), ...boxes);
}

const words = (name) => name.replaceAll("_", " ");
