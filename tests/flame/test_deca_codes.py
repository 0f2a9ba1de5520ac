import math
from dataclasses import replace

import pytest
import torch

from capface.errors import BadFile
from capface.flame.fitting.deca_codes import deca_heads
from capface.models.faces.deca import CODE_SIZE, split_code


def code_of(scale):
    code = torch.randn(2, CODE_SIZE)
    code[:, 206] = scale
    return split_code(code)


def test_a_code_becomes_a_head_field_by_field():
    code = code_of(5.0)
    heads = deca_heads(code, torch.eye(3).expand(2, 3, 3), 224, 224)
    for name in ("shape", "texture", "expression", "rotation", "jaw", "light"):
        assert torch.equal(getattr(heads, name), getattr(code, name))


def test_codes_that_are_not_heads_are_refused():
    crops = torch.eye(3).expand(2, 3, 3)
    broken = code_of(5.0)
    for code in (code_of(-1.0), code_of(math.nan), replace(broken, jaw=broken.jaw / 0)):
        with pytest.raises(BadFile, match=r"scales above 0.*deca_model\.tar.*fetch_data\.sh.*MD5 b182e51c"):
            deca_heads(code, crops, 224, 224)
