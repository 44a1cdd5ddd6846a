// The views: overview, page (of a technique), layer, unit, image. Each gives its elements; `watch` keeps them at the time chosen.

const views = {
  overview({ lost }) {
    const ofLayers = new Map(groupBy(figuresWhere(isOfLayer), (f) => f.layer));
    const shownLayers = layersOf().filter((layer) => ofLayers.has(layer)); // not one of maps on images alone
    // of many layers, and below them, what is far from the reader is not made yet, nor what it shows loaded
    const soon = shownLayers.length > MANY ? whenNear : (make) => make();
    const strips = shownLayers.map((layer) => soon(() => layerStrip(layer, ofLayers.get(layer)), "row"));
    const probes = probesOf();
    const missed = lost?.length === 3 ? `${lost[0]} ${lost[2]} of ${lost[1]}` : lost?.join(" ");
    const rest = figuresWhere((f) => f.layer === null && f.unit === null && f.probe === null);
    const others = rest.filter((f) => f.label === null || hasTurntable(f)), classes = rest.filter((f) => !others.includes(f));
    const small = (f) => picture(f, { title: subjectOf(f) || f.key.split("/").slice(1).join("/") || f.key, caption: true });
    return [
      heading(runs.map((run) => run.name).join(" beside ")),
      lost && el("p", { class: "quiet", role: "status" }, `There is no ${missed} here: this is the overview.`),
      failures(),
      alarms(),
      facts(),
      curveSection(),
      testSection(),
      strips.length ? section("Layers", ...strips) : null,
      probes.length ? section("Images", soon(() => probeStrip(probes))) : null,
      ...groupBy(classes, (f) => f.analysis).map(([, figures]) =>
        section(`${figures[0].title} of the classes`, soon(() => el("div", { class: "tiles" }, ...figures.map(small))))),
      ...groupBy(others.filter((f) => !f.technique.own_page), (f) => f.analysis).map(([, figures]) =>
        section(figures[0].title, ...[soon(() => wholeNetwork(figures))].flat(), files(figures[0].analysis))),
      ...groupBy(others.filter((f) => f.technique.own_page), (f) => f.analysis).map(([name, figures]) =>
        section(figures[0].title, soon(() => el("div", { class: "halves" }, ...figures.slice(0, 2).map((f) => picture(f, { href: link("page", name), caption: true })))),
          el("p", {}, el("a", { href: link("page", name) }, `${figures[0].title}: all ${figures.length} pictures and their curves`)))),
      el("p", { class: "quiet keys" }, "Keys: ", ...[["←", "→"], ["space"], ["j", "k"]].flatMap((keys, i) => [
        ...keys.flatMap((key) => [el("kbd", {}, key), " "]), ["move through time, ", "plays, ", "next and previous layer, unit or image"][i]])),
    ];
  },

  // all of a technique that is of the whole network
  page({ page }) {
    const figures = figuresWhere((f) => f.analysis === page && f.layer === null && f.unit === null && f.probe === null);
    const charts = curves(page);
    askForAll(figures);
    return [
      heading(figures[0].title),
      section("Pictures", ...wholeNetwork(figures), files(page)),
      charts.length ? section("Curves", chartGrid(charts, "Curves")) : null,
    ];
  },

  layer({ layer }) {
    const whole = figuresWhere((f) => f.layer === layer && f.unit === null && f.probe === null);
    const ofUnits = bestFirst(figuresWhere((f) => f.layer === layer && f.unit !== null && f.probe === null && !variantOf(f)));
    const ofProbes = figuresWhere((f) => f.layer === layer && f.probe !== null);
    const techniques = groupBy(ofUnits, (f) => f.analysis).map(([name, figures]) => [name, figures[0].title]);
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
    const small = ofUnits.every((f) => f.width && f.width < 160); // filters: many a row
    const grid = el("div", { class: small ? "cards small" : "cards" }, ...cards);
    const sections = (figures) => groupBy(figures, (f) => f.analysis).map(([, own]) =>
      section(own[0].title, el("div", { class: "wide" }, ...own.map((f) => picture(f, { caption: true }))), ...own.map(dataTable)));
    return [
      heading(layer, siblings("layer", layersOf(), layer)),
      ...sections(whole.filter((f) => !hasTable(f))),
      cards.length ? section(`${cards.length} units`, techniques.length > 1 ? choices(techniques, grid) : null, grid) : null,
      ...sections(whole.filter(hasTable)), // names and numbers after what is to be seen
      ...groupBy(ofProbes, (f) => f.analysis).map(([, own]) =>
        section(own[0].title, el("div", { class: "thirds" }, ...own.map((f) => picture(f, { href: link("image", f.probe), caption: true }))))),
    ];
  },

  unit({ layer, unit }) {
    const own = bestFirst(figuresWhere((f) => f.layer === layer && f.unit === unit && f.probe === null));
    askForAll(own);
    const up = el("a", { href: link("layer", layer) }, layer);
    return [
      heading(["unit ", String(unit), " of ", up], siblings("unit", unitsOf(layer).map((u) => [layer, u]), [layer, unit])),
      el("div", { class: "sections" }, ...groupBy(own, (f) => f.analysis).map(([, figures]) => {
        const corner = (f) => f.technique.square_variants.includes(variantOf(f)); // its picture, without what stands beside it
        const titled = figures.some(variantOf); // then each is, and they stand in line
        return section(figures[0].title,
          withAside(figures.every(corner), el("div", { class: "wide" }, ...figures.map((f) => picture(f, { caption: true, large: true, corner: corner(f), title: variantOf(f) || (titled ? "the unit" : "") }))),
            ...figures.flatMap((f) => [histogram(f), classMix(f)]), numbers(figures)),
          ...figures.map((f) => filmstrip(f, goTo, corner(f))));
      })),
    ];
  },

  image({ probe }) {
    const own = figuresWhere((f) => f.probe === probe);
    askForAll(own);
    const title = subjectOf(own.find((f) => f.label !== null && subjectOf(f)) ?? own[0]); // its class, if any picture is of one
    return [
      heading([`image ${probe}`, ...(title ? [el("span", { class: "of-what" }, title)] : [])], siblings("image", probesOf(), probe)),
      ...groupBy(own, (f) => f.analysis).map(([, figures], i) =>
        section(figures[0].title,
          withAside(false, el("div", { class: "wide stack" }, ...figures.map((f) => picture(f, { caption: true, large: true, title: subjectOf(f) }))),
            i === 0 ? confidences(own) : null, numbers(figures)),
          ...figures.map((f) => filmstrip(f, goTo)))),
    ];
  },
};

// what is of the whole network: a picture with its table, or several in two columns; then strips, one above the other.
// Where several have a table, each stands with its own, folded away.
function wholeNetwork(figures) {
  if (figures.filter(hasTable).length > 1) {
    return figures.map((f) => el("div", { class: "with-table" },
      el("h3", {}, f.key), el("div", { class: "wide" }, picture(f, { caption: true })),
      hasTable(f) ? el("details", { class: "more" }, el("summary", {}, `${f.key} as a table`), dataTable(f)) : null));
  }
  const shown = (f) => picture(f, { caption: true }), several = figures.length > 1;
  const strips = figures.filter((f) => several && (hasTurntable(f) || f.width > 3 * f.height)), others = figures.filter((f) => !strips.includes(f));
  const alone = others.length === 1;
  return [
    alone ? withAside(false, el("div", { class: "wide" }, shown(others[0])), dataTable(others[0])) : null,
    others.length > 1 ? el("div", { class: "halves" }, ...others.map(shown)) : null,
    strips.length ? el("div", { class: "wide stack strips" }, ...strips.map(shown)) : null,
    ...(alone ? strips : figures).map(dataTable),
  ];
}

// links to the files that an analysis has left at the time chosen
function files(analysis) {
  const left = (run, step) => run.steps.findLast((at) => at.step <= step && at.analyses[analysis]?.files);
  if (!runs.some((run) => left(run, Infinity))) return null;
  const place = el("p", { class: "files" });
  watch(() => place.replaceChildren(...columns().flatMap(({ run, step, name }) => {
    const at = left(run, step);
    const words = (file) => (columns().length > 1 ? `${file}, ${name}` : file);
    return at ? at.analyses[analysis].files.map((file) => el("a", { href: fileOf(run, at.step, analysis, file), download: "" }, words(file))) : [];
  })));
  return place;
}

// pictures, and beside or below them what is drawn of them
function withAside(below, pictures, ...parts) {
  const shown = parts.filter((part) => part !== null);
  return el("div", { class: below ? "with-below" : "with-aside" }, pictures, shown.length ? el("div", { class: "aside" }, ...shown) : null);
}

const chartGrid = (all, label) => el("div", { class: "charts", role: "group", "aria-label": label, tabindex: "0" }, ...all.map(([name, lines]) => chart(words(name), lines, goTo)));

// the headline charts, and all the others folded away
function curveSection() {
  const all = curves();
  if (!all.length) return null;
  const first = headlines().map((name) => all.find(([chart]) => chart.startsWith(name))).filter(Boolean);
  const shown = first.length ? first : all, rest = all.filter((one) => !shown.includes(one));
  return section("Curves", chartGrid(shown, "Curves"), rest.length ? el("details", { class: "more" }, el("summary", {}, `${rest.length} more`), chartGrid(rest, "More curves")) : null);
}

// what shows a unit best, first
const bestFirst = (figures) => figures.toSorted((a, b) => a.technique.unit_rank - b.technique.unit_rank);

function heading(words, beside = null) {
  const title = el("h1", { tabindex: "-1" }, ...[words].flat());
  return el("div", { class: "heading" }, title, beside);
}

function section(title, ...content) {
  if (content.every((part) => part === null)) return null;
  return el("section", {}, el("h2", {}, title), ...content);
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

// what was run: a line of facts, or where there are several runs a table in which what differs stands out
function facts() {
  const pairs = runs.map((run) => {
    const seconds = run.steps.flatMap((at) => Object.values(at.analyses)).reduce((sum, one) => sum + one.seconds, 0);
    return new Map([...run.facts, ["checkpoints", String(run.steps.length)], ["analyses took", `${number(Math.round(seconds))} s`]]);
  });
  const settings = runs.filter((run) => run.settings).map((run) => el("details", {},
    el("summary", {}, runs.length > 1 ? `All settings of ${run.name}` : "All settings"), el("pre", { tabindex: "0" }, run.settings)));
  if (runs.length === 1) {
    return el("div", { class: "facts" }, el("dl", {}, ...[...pairs[0]].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))), pagesWithin(runs[0]), ...settings);
  }
  const names = [...new Set(pairs.flatMap((of) => [...of.keys()]))];
  const differs = (name) => new Set(pairs.map((of) => of.get(name))).size > 1;
  return el("div", { class: "facts" },
    el("div", { class: "runs", role: "group", "aria-label": "The runs", tabindex: "0" }, el("table", {},
      el("thead", {}, el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...runs.map((run, i) => el("tr", {}, el("th", { scope: "row" }, run.name),
        ...names.map((name) => el("td", { class: differs(name) ? "differs" : "" }, pairs[i].get(name) ?? "–"))))))),
    ...settings);
}

// links to the pages that commands have made of a run, in its folder
function pagesWithin(run) {
  if (!run.pages?.length) return "";
  return el("p", { class: "files" }, "Pages of commands: ", ...run.pages.map((folder) => el("a", { href: address(`${run.base}${folder}/index.html`) }, folder)));
}

// analyses that failed at the step chosen, and those that were less than asked for
function failures() {
  const place = el("div");
  watch(() => {
    const went = runs.flatMap((run) => Object.entries(run.steps.find((at) => at.step === state.step)?.analyses ?? {}));
    const less = went.filter(([, outcome]) => outcome.less).map(([name, outcome]) => `${name}: ${outcome.less}`);
    place.replaceChildren(...went.filter(([, outcome]) => outcome.error).map(([name, { error }]) => el("details", { class: "failed" },
      el("summary", {}, `${name} failed at step ${state.step}: ${error.trim().split("\n").at(-1)}`), el("pre", { tabindex: "0" }, error))),
    less.length ? el("p", { class: "quiet" }, `Less than asked for at step ${state.step}: ${less.join("; ")}`) : "");
  });
  return place;
}

// what techniques found to be wrong at the step chosen
function alarms() {
  const place = el("div");
  watch(() => {
    const found = runs.flatMap((run) => run.alarms.filter((alarm) => alarm.step === latest(run, state.step)).map((alarm) => [run, alarm]));
    place.replaceChildren(...found.map(([run, { title, text }]) => el("p", { class: "alarm", role: "status" },
      el("strong", {}, runs.length > 1 ? `${run.name}, ${title}: ` : `${title}: `), text)));
  });
  return place;
}

// whether it is of a layer or its units; not of an image
const isOfLayer = (f) => f.layer !== null && f.probe === null && !variantOf(f);

// a row of a layer's units, seen by the technique that shows them best
function layerStrip(layer, figures) {
  const ofUnits = bestFirst(figures.filter((f) => f.unit !== null));
  const shown = (ofUnits.length ? ofUnits : figures).filter((f, _, all) => f.analysis === all[0].analysis);
  const one = (f) => picture(f, f.unit === null ? { href: link("layer", layer) } : { href: link("unit", layer, f.unit), title: `unit ${f.unit}` });
  return el("div", { class: "row" },
    el("h3", {}, el("a", { href: link("layer", layer) }, layer)),
    el("div", { class: "strip", role: "group", "aria-label": layer, tabindex: "0" }, ...pieceByPiece(shown, one)));
}

function probeStrip(probes) {
  const figures = figuresWhere((f) => f.probe !== null);
  const best = figures.toSorted((a, b) => a.technique.image_rank - b.technique.image_rank)[0].analysis;
  const pictures = probes.map((probe) => {
    const own = figures.filter((f) => f.probe === probe);
    const shown = own.find((f) => f.analysis === best) ?? own[0];
    return picture(shown, { href: link("image", probe), title: `image ${probe}` });
  });
  return el("div", { class: "strip", role: "group", "aria-label": "images", tabindex: "0" }, ...pictures);
}

// which techniques the cards show; remembered
function choices(techniques, grid) {
  const hidden = new Set(recall("hidden", "").split(",").filter(Boolean));
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
