"""The suite of PyPI `openai`: `openai_suite.py URL [--keyed URL KEY]`."""

import openai_chat
import openai_errors
import openai_responses
import openai_texts
import openai_tools
from suite import main

if __name__ == "__main__":
    parts = [openai_chat, openai_tools, openai_texts, openai_responses, openai_errors]
    main("openai", [case for part in parts for case in part.cases])
