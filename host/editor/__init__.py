"""Edit Head's live preview: the HTTP route and the rendering behind it."""

from .preview import EditorInputs, preview_cache
from .route import current_client_id

__all__ = ["EditorInputs", "current_client_id", "preview_cache"]
