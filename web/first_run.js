// A dialog that lists the files that a run lacks, with their folders and sources. ComfyUI runs the outputs that do not need them,
// such as previews, and reports the others in its response, which the canvas shows only as red outlines. The pack's server part
// (host/missing_models.py) sends the list when the prompt arrives.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

// How long to wait for ComfyUI's response, in ms. It arrives shortly before or after the event.
const PATIENCE = 2000;
const ADDRESS = /\b(?:civitai\.com|flame\.is\.tue\.mpg\.de|github\.com|huggingface\.co)[\w./-]*[\w/-]/g;
const WORDS = {
  en: {
    title: "Files are missing",
    none: "Nothing has run: this workflow needs files that are missing.",
    some: "Only a part has run: the rest of this workflow needs files that are missing.",
    folder: "goes into",
    source: "comes from",
    licence: "licence",
    photo: "Drop a picture on the node.",
    other: "Also refused",
    then: "Then press R on the canvas to refresh the lists, and run again.",
    hint: "The node CapFace Check lists every file. The template miniature needs no files.",
    close: "Close",
  },
  zh: {
    title: "缺少文件",
    none: "尚未运行:此工作流所需的文件还不存在。",
    some: "只运行了一部分:工作流的其余部分所需的文件还不存在。",
    folder: "放入",
    source: "来源",
    licence: "许可证",
    photo: "请将图片拖到该节点上。",
    other: "其他被拒绝的内容",
    then: "然后在画布上按 R 刷新列表,再次运行。",
    hint: "节点 CapFace Check 会列出所有文件。模板 miniature 无需任何文件即可运行。",
    close: "关闭",
  },
  ja: {
    title: "ファイルがありません",
    none: "何も実行されていません。このワークフローに必要なファイルがまだありません。",
    some: "一部だけが実行されました。残りに必要なファイルがまだありません。",
    folder: "置き場所",
    source: "入手先",
    licence: "ライセンス",
    photo: "ノードに画像をドロップしてください。",
    other: "そのほかに拒否されたもの",
    then: "その後、キャンバスで R を押してリストを更新し、もう一度実行してください。",
    hint: "ノード CapFace Check がすべてのファイルを一覧します。テンプレート miniature はファイルなしで動きます。",
    close: "閉じる",
  },
  ko: {
    title: "파일이 없습니다",
    none: "아무것도 실행되지 않았습니다. 이 워크플로에 필요한 파일이 아직 없습니다.",
    some: "일부만 실행되었습니다. 나머지에 필요한 파일이 아직 없습니다.",
    folder: "넣을 폴더",
    source: "받는 곳",
    licence: "라이선스",
    photo: "노드에 그림을 끌어다 놓으세요.",
    other: "그 밖에 거부된 것",
    then: "그런 다음 캔버스에서 R을 눌러 목록을 새로 고치고 다시 실행하세요.",
    hint: "CapFace Check 노드가 모든 파일을 보여 줍니다. miniature 템플릿은 파일 없이 실행됩니다.",
    close: "닫기",
  },
};
const STYLE = `
.capface-missing { width: min(680px, 92vw); max-height: 84vh; padding: 0; border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 12px; overflow: auto; color: var(--fg-color, #eee); background: var(--comfy-menu-bg, #222);
  font: 14px/1.5 Inter, system-ui, sans-serif; box-shadow: 0 12px 48px rgba(0,0,0,.5); user-select: text; }
.capface-missing::backdrop { background: rgba(0,0,0,.5); }
.capface-missing > div { padding: 22px 26px; }
.capface-missing h2 { margin: 0 0 6px; font-size: 19px; font-weight: 600; line-height: 1.3; }
.capface-missing p { margin: 0 0 12px; }
.capface-missing ol { list-style: none; margin: 0 0 14px; padding: 0; }
.capface-missing li { padding: 10px 0; border-top: 1px solid var(--border-color, #4e4e4e); }
.capface-missing .file { font-weight: 600; overflow-wrap: anywhere; }
.capface-missing .purpose { color: var(--descrip-text, #aaa); }
.capface-missing dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 12px; margin: 4px 0 0; font-size: 13px; }
.capface-missing dt { color: var(--descrip-text, #aaa); }
.capface-missing dd { margin: 0; overflow-wrap: anywhere; }
.capface-missing a { color: inherit; text-decoration: underline; }
.capface-missing button { padding: 0; border: 0; color: inherit; background: none; font: inherit; cursor: pointer; }
.capface-missing .node { float: right; margin-left: 12px; padding: 0 8px; border-radius: 6px; font-size: 12px;
  background: var(--comfy-input-bg, #333); }
.capface-missing .close { float: right; margin: 0 0 18px 16px; padding: 7px 18px; border-radius: 8px; font-weight: 600;
  color: #fff; background: #2f6fdb; }
.capface-missing button:focus-visible { outline: 2px solid #8ab4ff; outline-offset: 2px; }`;

let dialog;

function words() {
  const language = String(setting("Comfy.Locale") ?? "en").slice(0, 2);
  return WORDS[language] ?? WORDS.en;
}

function setting(name) {
  return app.extensionManager?.setting?.get?.(name);
}

/** Create an element that contains text or other elements. */
function element(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

/** Create an element with text in which web addresses are links. */
function linked(text) {
  const parts = element("dd");
  let end = 0;
  for (const { 0: address, index } of text.matchAll(ADDRESS)) {
    const link = Object.assign(element("a", "", address), { href: `https://${address}`, target: "_blank", rel: "noopener noreferrer" });
    parts.append(text.slice(end, index), link);
    end = index + address.length;
  }
  parts.append(text.slice(end));
  return parts;
}

function graphNode(id) {
  // Ids are numbers in some frontends and strings in others.
  return (app.rootGraph ?? app.graph).nodes.find((node) => String(node.id) === id);
}

/** Create a button with a node's title that moves the canvas to the node. */
function place(id) {
  const node = graphNode(id);
  if (!node) return "";
  const button = Object.assign(element("button", "node", node.title || node.type), { type: "button" });
  button.addEventListener("click", () => {
    dialog.close();
    app.canvas.setGraph?.(node.graph);
    app.canvas.centerOnNode(node);
    app.canvas.selectNode?.(node);
  });
  return button;
}

/** Create the entry for one file and all nodes that need it. */
function entry([lost, ...others], say) {
  const item = element("li", "", ...[lost, ...others].map(({ node }) => place(node)), element("span", "file", lost.file));
  if (lost.purpose) item.append(element("span", "purpose", ` · ${lost.purpose}`));
  const rows = element("dl");
  const row = (name, value) => rows.append(element("dt", "", name), value);
  if (lost.input === "image") rows.append(element("dd", "", say.photo));
  else row(say.folder, element("dd", "", lost.folders[0]));
  if (lost.source) row(say.source, linked(lost.source));
  if (lost.licence) row(say.licence, element("dd", "", lost.md5 ? `${lost.licence} · MD5 ${lost.md5}` : lost.licence));
  item.append(rows);
  return item;
}

function show(missing, errors, ran) {
  const say = words();
  const files = new Map();
  for (const lost of missing) {
    const key = JSON.stringify([lost.folders, lost.file]);
    files.set(key, [...(files.get(key) ?? []), lost]);
  }
  const list = element("ol", "", ...[...files.values()].map((wanted) => entry(wanted, say)));
  for (const [id, { message, details }] of errors) {
    list.append(element("li", "", place(id), element("span", "file", say.other), ` · ${message}: ${details}`));
  }
  const close = Object.assign(element("button", "close", say.close), { type: "button" });
  close.addEventListener("click", () => dialog.close());
  const title = Object.assign(element("h2", "", `CapFace · ${say.title}`), { id: "capface-missing-title" });
  const inside = element("div", "", title, element("p", "", ran ? say.some : say.none), list, close,
    element("p", "", element("b", "", say.then)), element("p", "purpose", say.hint));
  dialog ??= made(title.id);
  dialog.replaceChildren(element("style", "", STYLE), inside);
  if (!dialog.open) dialog.showModal();
  close.focus();
}

/** Create an empty dialog. The frontend's dialog class adds it to the page. */
function made(title) {
  const { element: own } = new app.ui.dialog.constructor("dialog", []);
  own.className = "capface-missing";
  own.setAttribute("aria-labelledby", title);
  // Keep keys from the canvas, which has shortcuts.
  own.addEventListener("keydown", (event) => event.stopPropagation());
  return own;
}

/** Wait for ComfyUI's response to the prompt: errors by node; empty if no response comes in time. */
async function refusals() {
  for (const end = Date.now() + PATIENCE; Date.now() < end; ) {
    const errors = app.lastNodeErrors;
    if (errors && Object.keys(errors).length) return errors;
    await new Promise((done) => setTimeout(done, 50));
  }
  return {};
}

/** Show the files that a prompt lacks after ComfyUI has refused all or part of it. */
async function report({ missing, runs }) {
  const errors = await refusals();
  const others = [], failed = new Set();
  for (const [id, { errors: found = [], dependent_outputs: outputs = [] }] of Object.entries(errors)) {
    for (const output of outputs) failed.add(output);
    for (const error of found) {
      if (!missing.some(({ node, input }) => node === id && input === error.extra_info?.input_name)) others.push([id, error]);
    }
  }
  show(missing, others, runs.some((id) => !failed.has(id)));
}

app.registerExtension({
  name: "capface.first-run",
  setup() {
    api.addEventListener("capface.missing", ({ detail }) => report(detail));
  },
});
