"""What a person sees, and does not see, while something runs."""

from __future__ import annotations

import pytest
import transformers

from leanformer.progress import quiet_libraries


@pytest.mark.parametrize("bars", [True, False])
def test_libraries_are_quiet_inside_and_as_they_were_afterwards(bars: bool) -> None:
    level = transformers.logging.get_verbosity()
    before = transformers.logging.is_progress_bar_enabled()
    try:
        (transformers.logging.enable_progress_bar if bars else transformers.logging.disable_progress_bar)()
        with quiet_libraries():
            with quiet_libraries():
                assert not transformers.logging.is_progress_bar_enabled()
            assert not transformers.logging.is_progress_bar_enabled()
            assert transformers.logging.get_verbosity() == transformers.logging.ERROR
        assert transformers.logging.is_progress_bar_enabled() == bars
        assert transformers.logging.get_verbosity() == level
    finally:
        (transformers.logging.enable_progress_bar if before else transformers.logging.disable_progress_bar)()
