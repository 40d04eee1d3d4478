"""What the configs of models of pictures need: pyramids and convolutions, which no rule by field name knows."""

from __future__ import annotations

from typing import Any

IMAGES: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 24, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4, "image_size": 32,
             "patch_size": 2},
    "swinv2": {"embed_dim": 24, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4, "image_size": 32,
               "patch_size": 2},
    "convnext": {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "image_size": 64},
    "convnextv2": {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "image_size": 64},
    "resnet": {"embedding_size": 16, "hidden_sizes": [24, 32, 40, 48], "depths": [1, 1, 2, 1]},
    "regnet": {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "groups_width": 8},
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilenet_v2": {"depth_multiplier": 0.35, "image_size": 64},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "image_size": 64, "hidden_dim": 320},
    "segformer": {"hidden_sizes": [16, 32, 40, 48], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
                  "decoder_hidden_size": 32, "image_size": 64},
    "mobilevit": {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64], "image_size": 64,
                  "num_attention_heads": 2, "patch_size": 2},
    "levit": {"hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 2, 2], "key_dim": [8, 8, 8],
              "depths": [1, 1, 1], "image_size": 64, "patch_size": 16},
    "pvt": {"hidden_sizes": [16, 32, 40, 48], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
            "image_size": 64},
    "yolos": {"image_size": [32, 32], "num_detection_tokens": 5, "patch_size": 8},
    "bit": {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "num_groups": 4},
    "dinat": {}, "cvt": {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "poolformer": {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]},
    "dinov2_with_registers": {"image_size": 32, "patch_size": 8, "mlp_ratio": 2},
    "dinov2": {"image_size": 32, "patch_size": 8, "mlp_ratio": 2},
    "vit_mae": {"image_size": 32, "patch_size": 8, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1,
                "decoder_num_attention_heads": 2, "decoder_intermediate_size": 40},
    "dpt": {"image_size": 32, "patch_size": 8, "backbone_out_indices": [0, 1, 1, 1],
            "neck_hidden_sizes": [8, 16, 16, 16],
            "fusion_hidden_size": 16},
}  # fmt: skip
