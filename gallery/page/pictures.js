// Pictures at the chosen time: one column a checkpoint or run, each with its caption as its alternative text.

function columns() {
  if (runs.length > 1) {
    return runs.map((run) => ({ run, step: state.step, name: run.name }));
  }
  const shown = [{ run: runs[0], step: state.step, name: `step ${state.step}` }];
  if (state.beside !== null) shown.push({ run: runs[0], step: state.beside, name: `step ${state.beside}` });
  return shown;
}

// options: href (where a click leads), caption (whether to tell it), title, large (small ones drawn larger)
function picture(figure, { href = null, caption = false, title = "", large = false } = {}) {
  const cells = el("div", { class: "cells" });
  const told = caption ? el("figcaption") : null;
  const frame = href ? el("a", { href, class: "cells-link" }, cells) : cells;
  let shown = [];
  watch(() => {
    const wanted = columns();
    if (wanted.length !== shown.length) {
      shown = wanted.map(() => cell(figure, large ? zoom(figure) : 0));
      cells.replaceChildren(...shown.map((one) => one.element));
    }
    wanted.forEach((column, i) => shown[i].show(versionAt(column.run, figure.id, column.step), column, wanted.length > 1));
    if (told) told.textContent = shown[0].caption || shown.at(-1).caption;
  });
  return el("figure", { class: "picture" }, title ? el("p", { class: "of" }, title) : null, frame, told);
}

// how many times its own size a picture is drawn to be looked at closely
function zoom(figure) {
  return figure.width ? Math.max(1, Math.min(3, Math.round(220 / figure.height), Math.floor(760 / figure.width))) : 0;
}

// an image that takes its room before it is there
function drawn(figure, attributes) {
  const image = el("img", { loading: "lazy", decoding: "async", alt: "", ...attributes });
  if (figure.width) {
    image.width = figure.width;
    image.height = figure.height;
  }
  return image;
}

function cell(figure, times) {
  const image = drawn(figure);
  if (times) image.style.width = `${figure.width * times}px`;
  const mark = el("span", { class: "mark" });
  const element = el("div", { class: "cell" }, image, mark);
  const one = {
    element,
    caption: "",
    show(version, column, several) {
      one.caption = version ? version.caption : "";
      element.classList.toggle("none", !version);
      element.classList.toggle("stale", Boolean(version) && version.step !== column.step);
      mark.textContent = !version ? `${several ? `${column.name}: ` : ""}not yet`
        : version.step !== column.step ? `${runs.length > 1 ? `${column.name}, ` : ""}of step ${version.step}`
        : several ? column.name : "";
      image.hidden = !version;
      if (!version) image.removeAttribute("src");
      else if (image.getAttribute("src") !== version.src) image.setAttribute("src", version.src);
      image.alt = version ? version.caption : "";
    },
  };
  return one;
}

// every version of a figure in a row, the chosen one marked; a click goes to its time
function filmstrip(figure, choose) {
  const strips = runs.map((run) => {
    const versions = run.figures.get(figure.id)?.versions ?? [];
    if (runs.length === 1 && versions.length < 2) return null;
    const frames = versions.map((version) => {
      const image = drawn(figure, { src: version.src });
      const label = `step ${version.step}: ${version.caption}`;
      const frame = el("button", { type: "button", class: "frame", "aria-label": label, onclick: () => choose(version.step) }, image, el("span", {}, String(version.step)));
      return { frame, version };
    });
    const strip = el("div", { class: "strip film", role: "group", "aria-label": `${figure.title} over time` }, ...frames.map((one) => one.frame));
    watch(() => {
      const current = versionAt(run, figure.id, state.step);
      for (const { frame, version } of frames) {
        const chosen = version === current;
        if (chosen !== (frame.getAttribute("aria-current") === "true")) {
          frame.setAttribute("aria-current", String(chosen));
          if (chosen) requestAnimationFrame(() => strip.scrollTo({ left: frame.offsetLeft - (strip.clientWidth - frame.offsetWidth) / 2 }));
        }
      }
    });
    return strip;
  });
  if (!strips.some(Boolean)) return null;
  const of = variantOf(figure) || subjectOf(figure);
  return el("div", { class: "films" }, of ? el("p", { class: "of" }, of) : null, ...strips);
}

// the numbers of some figures, now and how they went
function numbers(figures) {
  const rows = [];
  for (const figure of figures) {
    for (const run of runs) {
      const versions = run.figures.get(figure.id)?.versions ?? [];
      for (const name of new Set(versions.flatMap((version) => Object.keys(version.values)))) {
        if (name === "top_class") continue; // a class index: the caption has its name
        const points = versions.filter((v) => typeof v.values[name] === "number").map((v) => [v.step, v.values[name]]);
        if (!points.length) continue;
        const values = [el("td", { class: "value" })];
        if (runs.length === 1) values.push(el("td", { class: "value then" }));
        watch(() => {
          values[0].textContent = number(versionAt(run, figure.id, state.step)?.values[name]);
          if (values[1]) values[1].textContent = state.beside === null ? "" : number(versionAt(run, figure.id, state.beside)?.values[name]);
        });
        const what = [runs.length > 1 ? run.name : "", variantOf(figure) || subjectOf(figure), name.replaceAll("_", " ")].filter(Boolean).join(", ");
        rows.push(el("tr", {}, el("th", { scope: "row" }, what), ...values, el("td", {}, sparkline(points))));
      }
    }
  }
  return rows.length ? el("table", { class: "numbers" }, el("tbody", {}, ...rows)) : null;
}
