// What is far from the reader is not made yet, nor what it shows loaded: a large run has more of it than a browser draws at once.

const STRETCH = 16; // pictures in a line that are made at a time
const AFTER = 300; // milliseconds, after what is in sight

// what is made when the reader comes near it, and takes some room before: an element, or several, null among them
function whenNear(make, kind = "", room = {}) {
  const place = el("div", { class: `${kind} awaited`.trim() });
  Object.assign(place.style, room);
  const watcher = new IntersectionObserver((seen) => {
    const { isIntersecting, boundingClientRect: box } = seen.at(-1);
    if (!isIntersecting) return;
    watcher.disconnect();
    const now = () => {
      if (place.isConnected) place.replaceWith(...[make()].flat().filter((one) => one !== null));
    };
    if (box.top < innerHeight && box.bottom > 0) now();
    else setTimeout(now, AFTER); // what is seen comes first
  }, { rootMargin: "400px" });
  watcher.observe(place);
  return place;
}

// pictures in a line, of which those far beyond its end are made as the reader goes there
function pieceByPiece(figures, one) {
  const rest = figures.slice(STRETCH);
  const pictures = figures.slice(0, STRETCH).map(one);
  if (!rest.length) return pictures;
  const width = rest.reduce((sum, { width: w, height: h }) => sum + 10 + (w ? (104 * w) / h : 104), 0);
  return [...pictures, whenNear(() => pieceByPiece(rest, one), "", { flex: "none", width: `${Math.round(width)}px` })];
}
