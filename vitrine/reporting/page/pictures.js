// Pictures at the chosen time: one column a checkpoint or run, each with its caption as its alternative text.

// at: the checkpoint of the run that holds at the step; null before its first
function columns() {
  const column = (run, step, name) => ({ run, step, at: latest(run, step), name });
  if (runs.length > 1) return runs.map((run) => column(run, state.step, run.name));
  const shown = [column(runs[0], state.step, `step ${state.step}`)];
  if (state.beside !== null) shown.push(column(runs[0], state.beside, `step ${state.beside}`));
  return shown;
}

// what stands below a column's picture where it does not go without saying
function markOf(version, column, several) {
  const run = runs.length > 1 ? column.name : "";
  if (!version) return several ? `${column.name}: not yet` : "not yet";
  if (version.step !== column.at) return [run, `of step ${version.step}`].filter(Boolean).join(", ");
  if (!several) return "";
  return run && column.at !== column.step ? `${run}, step ${column.at}` : column.name;
}

// options: href (where a click leads), caption (whether to show it), title, large (enlarged),
// corner (only the square at the left of the picture: of a feature visualization the optimised one)
function picture(figure, { href = null, caption = false, title = "", large = false, corner = false } = {}) {
  if (caption && hasTurntable(figure)) return turntable(figure, title);
  const long = large && !corner && figure.width > 4 * figure.height; // several of it stand one above the other
  const cells = el("div", { class: long ? "cells long" : "cells" });
  const below = caption ? el("figcaption") : null;
  const frame = href ? el("a", { href, class: "cells-link" }, cells) : cells;
  let shown = [];
  watch(() => {
    const wanted = columns();
    if (wanted.length !== shown.length) {
      shown = wanted.map(() => cell(figure, large ? zoom(figure, corner) : 0, corner));
      cells.replaceChildren(...shown.map((one) => one.element));
    }
    const several = wanted.length > 1;
    wanted.forEach((column, i) => shown[i].show(versionAt(column.run, figure.id, column.step), column, several, caption));
    if (below) {
      below.hidden = several; // then each cell has its own
      below.textContent = shown[0].caption;
    }
  });
  return el("figure", { class: "picture" }, title ? el("p", { class: "of", title: title.length > 20 ? title : null }, title) : null, frame, below);
}

// how many times its own size a picture is drawn, in halves
function zoom({ width, height }, corner = false) {
  if (!width) return 0;
  if (corner) return Math.max(1, Math.round(256 / height));
  return Math.max(1, Math.min(4, Math.floor((2 * 300) / height) / 2, Math.floor((2 * 860) / width) / 2));
}

// an image that takes its room before it is there
function imageElement(figure, attributes) {
  const image = el("img", { loading: "lazy", decoding: "async", alt: "", ...attributes });
  if (figure.width) {
    image.width = figure.width;
    image.height = figure.height;
  }
  return image;
}

// a window on the square at the left of an image, `side` pixels wide
function cropToSquare(figure, image, side) {
  if (!figure.width || figure.width <= figure.height) return image;
  image.style.height = `${side}px`;
  const frame = el("div", { class: "corner" }, image);
  frame.style.width = frame.style.height = `${side}px`;
  return frame;
}

function cell(figure, times, corner) {
  const image = imageElement(figure);
  if (times) image.style.width = `${figure.width * times}px`;
  const mark = el("span", { class: "mark" });
  const below = el("p", { class: "cell-caption" });
  const shown = corner ? cropToSquare(figure, image, figure.height * (times || 1)) : image;
  const element = el("div", { class: "cell" }, shown, mark, below);
  const one = {
    element,
    caption: "",
    show(version, column, several, caption) {
      version?.ask?.();
      if (version?.pending) {
        element.classList.toggle("pending", true); // what was shown stays until it is there
        if (!image.hasAttribute("src") && version.src) image.setAttribute("src", version.src);
        return;
      }
      element.classList.toggle("pending", false);
      one.caption = version ? version.caption : "";
      element.classList.toggle("none", !version);
      element.classList.toggle("stale", Boolean(version) && version.step !== column.at);
      mark.textContent = markOf(version, column, several);
      below.textContent = several && caption ? one.caption : "";
      shown.hidden = !version;
      image.hidden = !version;
      if (!version) image.removeAttribute("src");
      else if (image.getAttribute("src") !== version.src) image.setAttribute("src", version.src);
      image.alt = one.caption;
    },
  };
  return one;
}

// every version of a figure in a row, the chosen one marked; a click goes to its time
function filmstrip(figure, choose, corner = false) {
  const side = corner || !figure.width ? 64 : Math.max(28, Math.min(64, Math.round((280 * figure.height) / figure.width)));
  const strips = runs.map((run) => {
    const versions = run.figures.get(figure.id)?.versions ?? [];
    if (runs.length === 1 && versions.length < 2) return null;
    const frames = versions.map((version) => {
      const image = imageElement(figure, { src: version.src });
      image.style.height = `${side}px`;
      const label = `step ${version.step}: ${version.caption}`;
      const seen = corner ? cropToSquare(figure, image, side) : image;
      const frame = el("button", { type: "button", class: "frame", "aria-label": label, onclick: () => choose(version.step) }, seen, el("span", {}, String(version.step)));
      return { frame, version };
    });
    const strip = el("div", { class: "strip film", role: "group", "aria-label": `${figure.title} over time${runs.length > 1 ? `, ${run.name}` : ""}` }, ...frames.map((one) => one.frame));
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
    return runs.length > 1 && frames.length ? el("div", {}, el("p", { class: "of" }, run.name), strip) : strip;
  });
  if (!strips.some(Boolean)) return null;
  const of = variantOf(figure) || subjectOf(figure);
  return el("div", { class: "films" }, of ? el("p", { class: "of" }, of) : null, ...strips);
}
