"""The entry of the pages: navigation only. Started by `taskscope page`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

# A picture of our own: an icon by name would be fetched from the internet by the reader's browser.
_ICON = Path(__file__).with_name("icon.svg")

st.set_page_config(page_title="Capacity · taskscope", page_icon=str(_ICON), layout="wide")
st.navigation(
    [st.Page("pages/capacity.py", title="Capacity", default=True)], position="hidden"
).run()
