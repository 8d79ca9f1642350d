// Requests to this server, and drop zones.

export async function post(path, body) {
  let response;
  try {
    response = await fetch(path, { method: "POST", body, headers: { "x-pmsi": "page" } });
  } catch {
    throw new Error("pmsi serve does not answer; is it still running?");
  }
  const found = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(found.error);
  return found;
}

export function take(input, use) {
  const zone = input.closest(".drop");
  input.addEventListener("change", () => {
    if (input.files.length) use([...input.files]);
    input.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) use(input.multiple ? files : files.slice(0, 1));
  });
}

// A file that misses its zone must not replace the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());

export function make(tag, text = "", name = "") {
  const element = document.createElement(tag);
  element.append(...breakable(text));
  if (name) element.className = name;
  return element;
}

// Nodes of a text that may be broken after an underscore, as names of classes have them.
export function breakable(text) {
  return text.split(/(?<=_)/).flatMap((part, number) => (number ? [document.createElement("wbr"), part] : [part]));
}
