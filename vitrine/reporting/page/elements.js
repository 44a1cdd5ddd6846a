// Elements, and what is drawn anew when time moves. Text only ever enters as text.

function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let watchers = []; // of the view that is shown
function watch(draw) {
  watchers.push(draw);
  draw();
}

function recall(name, otherwise) {
  try {
    return localStorage.getItem(`vitrine.${name}`) ?? otherwise;
  } catch {
    return otherwise; // a browser that keeps nothing for files
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`vitrine.${name}`, value);
  } catch {
    // then it holds until the page is closed
  }
}
