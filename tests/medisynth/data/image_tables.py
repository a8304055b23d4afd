"""Image tables for tests of the data contract."""

import numpy as np
import pandas as pd


def sound(n: int = 6) -> pd.DataFrame:
    """An image table of n rows, two images a patient, that keeps every rule of the base."""
    table = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "path": [f"Images/i{k}.png" for k in range(n)],
            "patient_id": [str(k // 2) for k in range(n)],
            "plane": ["Fetal brain" if k % 2 else "Other" for k in range(n)],
            "brain_plane": ["Trans-thalamic" if k % 2 else None for k in range(n)],
            "operator": ["Op. 1"] * n,
            "machine": ["Aloka"] * n,
            "site": [None] * n,
            "official_partition": ["training"] * n,
            "file_sha256": [f"{k:064x}" for k in range(n)],
            "pixel_sha256": [f"{k:064x}" for k in range(n)],
            "mode": ["L"] * n,
        }
    ).astype("string")
    numbers = {"row": 2, "width_px": 800, "height_px": 540, "n_bytes": 90_000}
    for name, value in numbers.items():
        table[name] = np.full(n, value, dtype=np.int64)
    levels = {
        "mean_intensity": 40,
        "std_intensity": 30,
        "black_fraction": 0.4,
        "sharpness": 200,
        "overlay_fraction": 0.01,
        "sector_fraction": 0.7,
    }
    for name, level in levels.items():
        table[name] = np.full(n, level, dtype=np.float64)
    table["png_text_keywords"] = pd.array([""] * n, dtype="string")
    table["png_metadata"] = pd.array([""] * n, dtype="string")
    table["synthetic_mark"] = np.zeros(n, dtype=bool)
    return table
