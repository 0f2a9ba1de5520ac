// Generated from the nodes' schemas by tools/words.py.

export const ALIASES = {
  "CapFaceAnimateHead": [
    "flame",
    "turntable",
    "keyframe",
    "interpolate",
    "video",
    "batch",
    "pose",
    "expression"
  ],
  "CapFaceApply": [
    "caphuman",
    "portrait",
    "face id",
    "faceid",
    "identity",
    "controlnet",
    "face",
    "likeness",
    "keyframe"
  ],
  "CapFaceBlendIdentities": [
    "merge faces",
    "mix",
    "average"
  ],
  "CapFaceCheck": [
    "doctor",
    "diagnose",
    "missing files"
  ],
  "CapFaceControlImage": [
    "depth",
    "canny",
    "openpose",
    "dwpose",
    "mediapipe",
    "instantid",
    "arc2face",
    "controlnet",
    "pose"
  ],
  "CapFaceConvertHead": [
    "flame",
    "chumpy"
  ],
  "CapFaceCropHead": [
    "detailer",
    "inpaint",
    "face detail",
    "segs",
    "crop and stitch",
    "adetailer"
  ],
  "CapFaceEditHead": [
    "flame",
    "pose",
    "expression",
    "emotion",
    "smile",
    "gaze",
    "eyes",
    "light",
    "relight",
    "face editor"
  ],
  "CapFaceEncodeIdentity": [
    "face",
    "face id",
    "faceid",
    "reference photo",
    "id",
    "caphuman",
    "likeness",
    "portrait"
  ],
  "CapFaceExportHead": [
    "arkit",
    "blendshapes",
    "flame",
    "smirk",
    "deca",
    "emoca",
    "bvh",
    "obj",
    "glb",
    "3d",
    "mesh"
  ],
  "CapFaceFitHead": [
    "flame",
    "3dmm",
    "pose",
    "expression",
    "deca",
    "caphuman"
  ],
  "CapFaceHeadPreset": [
    "pose",
    "expression",
    "emotion",
    "smile",
    "gaze",
    "light",
    "relight",
    "flame",
    "portrait"
  ],
  "CapFaceIdentityParts": [
    "ablation",
    "global",
    "local"
  ],
  "CapFaceImportHead": [
    "arkit",
    "blendshapes",
    "live link face",
    "flame",
    "smirk",
    "deca",
    "emoca",
    "csv",
    "mocap"
  ],
  "CapFaceLoad": [
    "caphuman",
    "face id",
    "faceid",
    "portrait",
    "face",
    "identity"
  ],
  "CapFaceLoadHead": [
    "flame",
    "import head",
    "json",
    "load pose",
    "load expression"
  ],
  "CapFaceLoadHeadModel": [
    "flame",
    "3dmm",
    "load flame"
  ],
  "CapFaceLoadIdentity": [
    "import face",
    "face model",
    "face id",
    "faceid"
  ],
  "CapFaceLoadMiniature": [
    "caphuman",
    "portrait",
    "capface demo",
    "example"
  ],
  "CapFaceMeasure": [
    "similarity",
    "evaluate",
    "clip score",
    "benchmark"
  ],
  "CapFacePersonMask": [
    "regional prompt",
    "two people",
    "couple",
    "prompt per person",
    "attention mask",
    "portrait"
  ],
  "CapFaceRenderHead": [
    "flame",
    "normal",
    "landmarks",
    "caphuman",
    "pose",
    "relight"
  ],
  "CapFaceReuseControlNet": [
    "controlnet",
    "speed",
    "cache",
    "faster"
  ],
  "CapFaceSaveHead": [
    "flame",
    "export head",
    "json",
    "save pose",
    "save expression"
  ],
  "CapFaceSaveIdentity": [
    "export face",
    "face model",
    "face id",
    "faceid"
  ],
  "CapFaceSyntheticPerson": [
    "portrait",
    "example face",
    "demo photo"
  ],
  "CapFaceTransferHead": [
    "flame",
    "pose",
    "expression",
    "relight",
    "light",
    "copy expression",
    "retarget"
  ]
};
