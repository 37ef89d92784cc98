"""A finished file -> its pictures in their place and its line in the state; of two films with one UID one stays.

In: a job and its outcome, in any order. Out: the same end whatever the order was, and whenever the process was killed:
a picture is in its place before the state speaks of it, and is taken away before the state forgets it.
"""

from dataclasses import replace

from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.work.outcome import Outcome, partial_path
from dinov2.preprocess.work.shelf import Shelf
from dinov2.preprocess.work.state import Job, State


def commit(job: Job, outcome: Outcome, *, state: State, shelf: Shelf) -> Outcome:
    """Note an outcome; -> what it is now that other files of the same UID are known.  Raises OSError."""
    if outcome.unchanged:
        state.record_unchanged(job)
    else:
        if outcome.pictures:
            outcome = _against_rival(job, outcome, state=state, shelf=shelf)
        stays = {picture.image_id for picture in outcome.pictures}
        for image_id in state.images_of(job.name):  # of what the file was when it was converted before
            if image_id not in stays:
                shelf.places.picture(image_id).unlink(missing_ok=True)
        for picture in outcome.pictures:
            place = shelf.places.picture(picture.image_id)
            partial = partial_path(shelf.partial, name=job.name, frame=picture.frame)
            try:
                partial.replace(place)
            except FileNotFoundError:
                place.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(place)
        state.record(job, outcome)
    state.commit()
    return outcome


def _against_rival(job: Job, outcome: Outcome, *, state: State, shelf: Shelf) -> Outcome:
    """A film of the right polarity stays before a suspect one, then the earlier one in the listing."""
    rival = state.kept(outcome.film or "", other_than=job.name)
    if rival is None:
        return outcome
    if rival.place is not None and (rival.suspect, rival.place) < (outcome.suspect, job.place):
        for picture in outcome.pictures:
            partial_path(shelf.partial, name=job.name, frame=picture.frame).unlink()
        return replace(outcome, pictures=(), reason=str(Reason.DUPLICATE_UID))
    for image_id in state.images_of(rival.name):
        shelf.places.picture(image_id).unlink(missing_ok=True)
    if rival.place is None:
        state.forget(rival.name)
    else:
        state.record_duplicate(rival.name)
    # Durable now: after a kill the state must not take the new picture for the rival's.
    state.commit(now=True)
    return outcome
