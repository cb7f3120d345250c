"""Follow the objects of a video: retina finds them in each frame, trackers says which is which.

    pip install 'retina-detector[video,interchange]' trackers
    python docs/examples/track_video.py runs/demo/checkpoints/best.safetensors street.mp4

Prints a line for every object that is followed: when, its number, its class and its box.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import av
from trackers import ByteTrackTracker

import retina


def followed(detector: retina.Predictor, video: str) -> Iterator[str]:
    """A line for every object that is followed in every frame."""
    with av.open(video) as container:
        stream = container.streams.video[0]
        tracker = ByteTrackTracker(frame_rate=float(stream.average_rate or 25))
        for frame in container.decode(stream):
            # A low threshold: a tracker takes weak detections of objects that it knows.
            (found,) = detector.predict(frame.to_ndarray(format="rgb24"), score_threshold=0.1)
            tracked = tracker.update(found.to_supervision(detector.categories))
            for box, number, name in zip(
                tracked.xyxy, tracked.tracker_id, tracked["class_name"], strict=True
            ):
                if number >= 0:  # -1 until an object was seen for a few frames
                    corners = " ".join(f"{side:.1f}" for side in box)
                    yield f"{frame.time:.3f} s  {number}  {name}  {corners}"


if __name__ == "__main__":
    for line in followed(retina.load(sys.argv[1]), sys.argv[2]):
        print(line)
