// The words of Edit Head's editor in four languages. `word` returns one in the language of ComfyUI's settings.

import { app } from "../../scripts/app.js";

export const LANGUAGES = ["en", "zh", "ja", "ko"];
export const WORDS = {
  // Sections
  pose: ["Pose", "姿态", "姿勢", "포즈"],
  position: ["Position", "位置", "位置", "위치"],
  expression: ["Expression", "表情", "表情", "표정"],
  brows: ["Brows", "眉毛", "眉", "눈썹"],
  gaze: ["Eyes", "眼睛", "目", "눈"],
  light: ["Light", "光照", "光", "조명"],
  shape: ["Shape", "形状", "形状", "형태"],
  sections: ["Sections of sliders", "滑块分组", "スライダーの区分", "슬라이더 구역"],
  shift: ["Shift-click keeps the other sections open", "按住 Shift 单击可保留其他分组", "Shift + クリックでほかの区分も開いたままにします",
    "Shift+클릭하면 다른 구역도 열어 둡니다"],
  // Presets
  presets: ["Presets", "预设", "プリセット", "프리셋"],
  save: ["Save as a preset", "保存为预设", "プリセットとして保存", "프리셋으로 저장"],
  name: ["Name of the preset", "预设名称", "プリセットの名前", "프리셋 이름"],
  rename: ["Rename the preset (F2)", "重命名预设 (F2)", "プリセットの名前を変更 (F2)", "프리셋 이름 바꾸기 (F2)"],
  delete: ["Delete the preset (Del)", "删除预设 (Del)", "プリセットを削除 (Del)", "프리셋 삭제 (Del)"],
  sure: ["Delete this preset?", "删除此预设?", "このプリセットを削除しますか?", "이 프리셋을 삭제할까요?"],
  exists: ["A preset of this name exists.", "已有同名预设。", "同じ名前のプリセットがあります。", "같은 이름의 프리셋이 있습니다."],
  unsaved: ["The preset could not be saved.", "无法保存预设。", "プリセットを保存できませんでした。", "프리셋을 저장할 수 없습니다."],
  reset: ["Reset this section", "重置此分组", "この区分を初期化", "이 구역 초기화"],
  // Tools
  tools: ["Tools", "工具", "ツール", "도구"],
  resetAll: ["Reset everything", "全部重置", "すべて初期化", "모두 초기화"],
  mirror: ["Mirror left and right", "左右镜像", "左右を反転", "좌우 반전"],
  link: ["Link left and right sliders", "联动左右滑块", "左右のスライダーを連動", "좌우 슬라이더 연동"],
  camera: ["Keep the eyes on the camera", "目光始终看向镜头", "視線をカメラに向け続ける", "시선을 카메라에 고정"],
  snap: ["Snap to steps of 15° (or hold Ctrl)", "吸附到 15° 步长(或按住 Ctrl)", "15° 刻みに吸着(または Ctrl を押す)", "15° 단위로 맞춤 (또는 Ctrl 누르기)"],
  take: ["Take this section from a photo (or drop one here)", "从照片读取此分组(或将照片拖到此处)", "この区分を写真から取る(写真のドロップも可)",
    "이 구역을 사진에서 가져오기 (사진을 끌어다 놓아도 됨)"],
  reading: ["Reading the photo …", "正在读取照片…", "写真を読み取り中…", "사진을 읽는 중…"],
  // Views
  views: ["View", "视图", "表示", "보기"],
  over: ["Show the head over its photo", "将头部叠加到照片上", "頭部を写真に重ねる", "머리를 사진 위에 표시"],
  opacity: ["Opacity of the head", "头部不透明度", "頭部の不透明度", "머리의 불투명도"],
  close: ["Look at the face, wherever it is in the frame", "近看面部,无论其在画面何处", "顔がどこにあっても近くから見る", "얼굴이 어디에 있든 가까이 보기"],
  guides: ["Guides: thirds, the render's frame, the head's size", "参考线:三分线、渲染画幅、头部大小", "ガイド:三分割、描画の枠、頭部の大きさ", "안내선: 3분할, 렌더링 틀, 머리 크기"],
  full: ["Fill the window", "全窗口编辑", "ウィンドウ全体で編集", "전체 창으로 편집"],
  leave: ["Leave the full window (Escape)", "退出全窗口 (Esc)", "全体表示を終える (Esc)", "전체 창 닫기 (Esc)"],
  head: ["head", "头部", "頭部", "머리"],
  at: ["at", "@", "@", "@"],
  // The picture
  editor: ["Head editor. Arrow keys turn the head, comma and full stop tilt it, shift with arrow keys moves it, plus and minus size it. Alt makes "
    + "small steps, Ctrl large ones.", "头部编辑器。方向键转动头部,逗号和句号使其倾斜,Shift + 方向键移动,加减号缩放。Alt 为小步,Ctrl 为大步。",
    "頭部エディター。矢印キーで回し、コンマとピリオドで傾け、Shift + 矢印キーで動かし、プラスとマイナスで大きさを変えます。Alt で細かく、Ctrl で大きく動きます。",
    "머리 편집기. 화살표 키로 돌리고, 쉼표와 마침표로 기울이고, Shift+화살표 키로 옮기고, 더하기와 빼기로 크기를 바꿉니다. Alt는 작은 단계, Ctrl은 큰 단계입니다."],
  picture: ["The edited head", "编辑后的头部", "編集した頭部", "편집한 머리"],
  hint: ["drag head, eyes, rings, light · wheel: size", "拖动头部、眼睛、圆环或光源 · 滚轮:大小", "頭・目・輪・光をドラッグ · ホイール:大きさ",
    "머리, 눈, 고리, 조명을 끌기 · 휠: 크기"],
  before: ["not run yet", "尚未运行", "未実行", "아직 실행 안 됨"],
  silent: ["The server does not answer.", "服务器没有响应。", "サーバーが応答しません。", "서버가 응답하지 않습니다."],
  ball: ["Drag: where the light comes from. Double click: the head's own light.", "拖动:光的方向。双击:头部自身的光。",
    "ドラッグ:光の方向。ダブルクリック:頭部自身の光。", "끌기: 빛의 방향. 두 번 클릭: 머리 자체의 빛."],
  batch: ["Which head of the batch is shown; the sliders edit all of them", "显示批次中的哪个头部;滑块作用于全部", "バッチのどの頭部を見るか。スライダーはすべてに効きます",
    "배치 중 어느 머리를 볼지. 슬라이더는 모두에 적용됩니다"],
  previous: ["The head before", "上一个头部", "前の頭部", "이전 머리"],
  next: ["The next head", "下一个头部", "次の頭部", "다음 머리"],
  // Rings and readings
  yaw: ["yaw", "偏航", "ヨー", "요"],
  pitch: ["pitch", "俯仰", "ピッチ", "피치"],
  roll: ["roll", "翻滚", "ロール", "롤"],
  move: ["move", "移动", "移動", "이동"],
  position_x: ["x", "x", "x", "x"],
  position_y: ["y", "y", "y", "y"],
  size: ["size", "大小", "大きさ", "크기"],
  gaze_yaw: ["eyes ↔", "视线 ↔", "視線 ↔", "시선 ↔"],
  gaze_pitch: ["eyes ↕", "视线 ↕", "視線 ↕", "시선 ↕"],
  key_azimuth: ["azimuth", "方位角", "方位角", "방위각"],
  key_elevation: ["elevation", "仰角", "仰角", "고도"],
};

/** The language of ComfyUI's settings: "en", "zh", "ja" or "ko". Others are shown in English. */
export function language() {
  const chosen = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").slice(0, 2);
  return LANGUAGES.includes(chosen) ? chosen : "en";
}

/** A word of the editor in the user's language. */
export function word(key) {
  return WORDS[key][LANGUAGES.indexOf(language())];
}
