"""The 20 bAbI tasks (Weston et al. 2015) made anew: stories without a download, and as many as one wants.

    from mnm_rl.tasks.babi.generate import format_stories, generate_stories
    print(format_stories(list(generate_stories(2, 10, "any", "name"))))

They follow the released English files of version 1.2, not the later public Lua program: the same words,
sentences and questions, and the same distributions as far as ``docs/babi.md`` shows. The same name gives the
same story on every machine. No text of the released data is part of this package.
"""

from mnm_rl.tasks.babi.generate.catalogue import CATALOGUE, generate_stories, generate_story
from mnm_rl.tasks.babi.generate.files import Sizes, write_files
from mnm_rl.tasks.babi.generate.lines import TextLine, TextStory, format_stories, parse_stories

__all__ = [
    "CATALOGUE",
    "Sizes",
    "TextLine",
    "TextStory",
    "format_stories",
    "generate_stories",
    "generate_story",
    "parse_stories",
    "write_files",
]
