// How the user works with Edit Head's editor: modes of its tools and of its view. They belong to the browser, not to a workflow.

const KEY = "capface.editor";
const DEFAULTS = { link: false, camera: false, snap: false, guides: false, opacity: 0.8 };

export function preference(name) {
  return stored()[name] ?? DEFAULTS[name];
}

export function setPreference(name, value) {
  localStorage.setItem(KEY, JSON.stringify({ ...stored(), [name]: value }));
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}
