"""Text in and out: tokenizer, incremental detokenisation, stop strings, chat templates."""

from sagellm_core.text.chat_template import ChatTemplate
from sagellm_core.text.detokenizer import Detokenizer
from sagellm_core.text.output import OutputText
from sagellm_core.text.stops import StopScanner
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_core.text.tools import ToolFormat, ToolParser

__all__ = ["ChatTemplate", "Detokenizer", "OutputText", "StopScanner", "Tokenizer", "ToolFormat", "ToolParser"]
