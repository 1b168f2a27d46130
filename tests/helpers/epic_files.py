"""Lines of small annotation files in the form of EPIC-KITCHENS-100."""

HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
CLASSES = {
    "EPIC_100_verb_classes.csv": "id,key\n0,take\n1,peel\n",
    "EPIC_100_noun_classes.csv": "id,key\n0,tap\n1,kiwi\n",
}


def annotation(
    narration_id: str, *, start: str = "00:00:01.00", stop: str = "00:00:02.00", verb: int = 0, noun: int = 0
) -> str:
    """Return a line of an annotation file."""
    video_id = narration_id.rpartition("_")[0]
    return f"{narration_id},{video_id[:3]},{video_id},{start},{stop},{verb},{noun}\n"
