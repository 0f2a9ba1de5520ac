"""The files that the pack can use: their folders, purposes, sources, licences and checksums."""

from dataclasses import dataclass
from pathlib import PurePosixPath

FLAME_2020_MD5 = "cfc3b95159b2a8981ebc347170202ba5"
_DECA_DATA = "https://raw.githubusercontent.com/yfeng95/DECA/a11554ae2a2b0f3998cf1fa94dd4db03babb34a2/data"


@dataclass(frozen=True)
class Asset:
    """A file that the user provides."""

    folder: str
    """Name of the folder under ComfyUI's `models`, also in extra_model_paths.yaml."""
    file: str
    purpose: str
    source: str
    licence: str
    md5: str | None = None
    ending: str | None = None
    """File extension to list, if it is not one of ComfyUI's usual ones."""
    sign: str | None = None
    """Part of a tensor's name that distinguishes this kind of checkpoint from others."""
    address: str | None = None
    """Address of the file itself, for the frontend's list of missing models, if the list accepts it."""
    need: str = "optional"
    """Whether a portrait of a person on a photo needs the file, in a few words for the table of files."""
    url: str | None = None
    """Address that `files/weights.py` fetches from, if it is not `address`. If `file` is a pattern, a zip of such files."""
    size: int | None = None
    """Bytes of what is fetched, if known."""
    sha256: str | None = None
    """Checksum of what is fetched, if known."""

    @property
    def name(self) -> str:
        """The name by which a user asks for it: the file's own, or for a pattern that of the folder."""
        path = PurePosixPath(self.file)
        return path.parent.name if "*" in path.name else path.name

    @property
    def download(self) -> str | None:
        """The address to fetch from; None for files that the user must get from a page, for example after registration."""
        return self.url or self.address

    @property
    def checksum(self) -> str | None:
        """The published checksum with its kind, if known."""
        if self.sha256:
            return f"SHA-256 {self.sha256}"
        return f"MD5 {self.md5}" if self.md5 else None

    @property
    def provenance(self) -> str:
        """The source, the licence and, if known, the checksum, for messages."""
        checksum = f", {self.checksum}" if self.checksum else ""
        return f"{self.source} (licence {self.licence}{checksum})"

    @property
    def reference(self) -> str:
        """The file and its provenance, for messages."""
        return f"{self.file} from {self.provenance}"

    def how_to_get(self) -> str:
        """Say in a sentence where to get the file."""
        return f"Get {self.file} ({self.purpose}) from {self.provenance}"


CAPHUMAN = Asset(
    "capface",
    "caphuman.ckpt",
    "the CapFace network",
    "the page of github.com/VamosC/CapHuman",
    "CC-BY-NC-4.0",
    "6f0086112db9abc6ce4518a458d4d4b8",
    sign="control_model.mask_predict.",
    address="https://huggingface.co/VamosC/CapHuman/resolve/main/caphuman.ckpt",
    need="needed",
)
FACENET = Asset(
    "facenet",
    "20180402-114759-vggface2.pt",
    "FaceNet, the global identity",
    "the releases of github.com/timesler/facenet-pytorch",
    "MIT",
    sign="conv2d_1a.conv.weight",
    need="needed",
    url="https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
    size=111_898_327,
    sha256="281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
)
INSIGHTFACE = Asset(
    "insightface",
    "models/buffalo_l/*.onnx",
    "face detection and landmarks",
    "the releases of github.com/deepinsight/insightface",
    "non-commercial research",
    need="needed, or the package facenet-pytorch",
    url="https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",
    size=288_621_354,
    sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
)
FLAME = Asset(
    "flame",
    "generic_model.pkl",
    "FLAME 2020, the head that CapFace was trained with",
    "flame.is.tue.mpg.de, after registration",
    "non-commercial research",
    FLAME_2020_MD5,
)
FLAME_LANDMARKS = Asset(
    "flame",
    "landmark_embedding.npy",
    "FLAME's 68 landmarks",
    "the folder data of github.com/yfeng95/DECA",
    "non-commercial research",
    url=f"{_DECA_DATA}/landmark_embedding.npy",
    size=31_292,
    sha256="8095348eeafce5a02f6bd8765146307f9567a3f03b316d788a2e47336d667954",
)
FLAME_TEMPLATE = Asset(
    "flame",
    "head_template.obj",
    "the texture coordinates of FLAME's mesh",
    "the folder data of github.com/yfeng95/DECA",
    "non-commercial research",
    url=f"{_DECA_DATA}/head_template.obj",
    size=563_358,
    sha256="dd5bfbce75adb99b1963f43bca7ec3557bd4a7321f8fc515f4100599e80d99f2",
)
FLAME_TEXTURE = Asset(
    "flame",
    "FLAME_texture.npz",
    "FLAME's skin",
    "flame.is.tue.mpg.de (TextureSpace.zip), after registration",
    "CC-BY-NC-SA-4.0",
    "2a3982db7667c32d0dd13351aa6758f7",
)
DECA = Asset(
    "deca",
    "deca_model.tar",
    "fitting FLAME heads to photos",
    "the link in fetch_data.sh of github.com/yfeng95/DECA",
    "non-commercial research",
    "b182e51c26e5a73b1f7a5c53cf8cc038",
    ".tar",
    sign="E_flame.",
)
PARSER = Asset(
    "face_parsing",
    "79999_iter.pth",
    "finding the face's pixels in a portrait",
    "the link in the README of github.com/zllrunning/face-parsing.PyTorch (parsing_bisenet.pth of github.com/xinntao/facexlib "
    "does, too)",
    "MIT",
    "ff26a222ce48a618a1fa820b46223cae",
    sign="cp.resnet.",
    url="https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth",
    size=53_289_463,
    sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
)
FACE_LANDMARKER = Asset(
    "detection",
    "face_landmarker.task",
    "MediaPipe's Face Landmarker: finding faces, 478 landmarks and the expression",
    "storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/latest/face_landmarker.task",
    "Apache-2.0",
    ending=".task",
    need="recommended, or mediapipe_face_fp32.safetensors",
    address="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/latest/face_landmarker.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    size=3_758_596,
)
COMFYUI_FACE_LANDMARKER = Asset(
    "detection",
    "mediapipe_face_fp32.safetensors",
    "the same for ComfyUI's own nodes, with a smaller mesh network",
    "huggingface.co/Comfy-Org/mediapipe",
    "Apache-2.0",
    sign="detector_short.",
    address="https://huggingface.co/Comfy-Org/mediapipe/resolve/main/detection/mediapipe_face_fp32.safetensors",
    need="optional, or face_landmarker.task",
)
OPEN_CLIP = Asset(
    "open_clip",
    "open_clip_model.safetensors",
    "CLIP ViT-L/14 by OpenAI in open_clip's layout: the local identity, and how well a portrait shows its prompt",
    "huggingface.co/timm/vit_large_patch14_clip_224.openai",
    "MIT",
    sign="visual.conv1.weight",
    need="needed, or clip-vit-large-patch14.safetensors",
    url="https://huggingface.co/timm/vit_large_patch14_clip_224.openai/resolve/main/open_clip_model.safetensors",
)
ASSETS = (
    CAPHUMAN,
    FACENET,
    INSIGHTFACE,
    FACE_LANDMARKER,
    COMFYUI_FACE_LANDMARKER,
    FLAME,
    FLAME_LANDMARKS,
    FLAME_TEMPLATE,
    FLAME_TEXTURE,
    DECA,
    PARSER,
    OPEN_CLIP,
)
"""The pack's own files."""
CLIP_VISION = Asset(
    "clip_vision",
    "clip-vit-large-patch14.safetensors",
    "CLIP ViT-L/14, the local identity",
    "huggingface.co/openai/clip-vit-large-patch14, where it is called model.safetensors",
    "MIT",
    address="https://huggingface.co/openai/clip-vit-large-patch14/resolve/main/model.safetensors",
    need="needed, or open_clip_model.safetensors",
    size=1_710_540_580,
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
)
HOST_FILES = (
    Asset(
        "checkpoints",
        "realisticVisionV60B1_v51VAE.safetensors",
        "a base model; any other SD 1.5 checkpoint will do",
        "civitai.com/models/4201",
        "on that page",
        address="https://civitai.com/api/download/models/130072",
        need="needed, or another SD 1.5 checkpoint",
    ),
    Asset(
        "checkpoints",
        "toonyou_beta6.safetensors",
        "a base model that draws comics; any other SD 1.5 checkpoint will do",
        "civitai.com/models/30240",
        "on that page",
        address="https://civitai.com/api/download/models/125771",
    ),
    CLIP_VISION,
    Asset(
        "controlnet",
        "control_v11f1p_sd15_depth_fp16.safetensors",
        "a depth ControlNet",
        "huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors",
        "on that page",
        address="https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/control_v11f1p_sd15_depth_fp16.safetensors",
    ),
    Asset(
        "controlnet",
        "control_v11p_sd15_openpose_fp16.safetensors",
        "an OpenPose ControlNet",
        "huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors",
        "on that page",
        address="https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/control_v11p_sd15_openpose_fp16.safetensors",
    ),
    Asset(
        "loras",
        "add_detail.safetensors",
        "a LoRA; any other for SD 1.5 will do",
        "civitai.com/models/58390",
        "on that page",
        address="https://civitai.com/api/download/models/62833",
    ),
)
"""Files of ComfyUI's own loaders that the pack's workflows name."""


def _on_huggingface(folder: str, purpose: str, page: str, path: str, file: str = "") -> Asset:
    """Describe a file of a page on Hugging Face, under its own name or another one."""
    return Asset(
        folder,
        file or path.rpartition("/")[2],
        purpose,
        f"huggingface.co/{page}",
        "on that page",
        address=f"https://huggingface.co/{page}/resolve/main/{path}",
    )


_QWEN_IMAGE = "Comfy-Org/Qwen-Image_ComfyUI"
OTHER_MODEL_FILES = (
    _on_huggingface(
        "diffusion_models", "Qwen-Image", _QWEN_IMAGE, "split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors"
    ),
    _on_huggingface(
        "text_encoders",
        "Qwen-Image's text encoder",
        _QWEN_IMAGE,
        "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
    _on_huggingface("vae", "Qwen-Image's VAE", _QWEN_IMAGE, "split_files/vae/qwen_image_vae.safetensors"),
    _on_huggingface(
        "controlnet",
        "a ControlNet for Qwen-Image",
        "Comfy-Org/Qwen-Image-InstantX-ControlNets",
        "split_files/controlnet/Qwen-Image-InstantX-ControlNet-Union.safetensors",
    ),
    _on_huggingface(
        "checkpoints",
        "SDXL; any other SDXL checkpoint will do",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "sd_xl_base_1.0.safetensors",
    ),
    _on_huggingface(
        "controlnet",
        "InstantID's ControlNet",
        "InstantX/InstantID",
        "ControlNetModel/diffusion_pytorch_model.safetensors",
        "instantid_controlnet.safetensors",
    ),
    _on_huggingface(
        "controlnet",
        "a depth ControlNet for SDXL",
        "xinsir/controlnet-depth-sdxl-1.0",
        "diffusion_pytorch_model.safetensors",
        "controlnet_depth_sdxl.safetensors",
    ),
)
"""Files of the workflows that drive other models than SD 1.5. CapFace itself does not use them."""
