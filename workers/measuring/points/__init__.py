"""Many recipes against one reference: what `sweep`, `surface` and whatever turns knobs have in common.

    class _Sweep(PointsAttempt):
        def run(self):
            # The ground: text, reference (scored once), noise floor.
            with self.ground() as ground:
                # Progress speaks of `total` points. They come in the order asked for.
                runner = self.runner(ground, total=12)
                points = runner.measure([Setting((0.5,), recipe), …])

The engine is started once and takes each recipe's weights in place. A point is a file in the job's scratch folder, put
there whole. The attempt after a lost one finds it, and so does a second worker on the same job. Anyone who measures a
point holds a lock on it meanwhile, which the kernel drops when its holder dies (`runner`).

`PointRecord` (`record`) has a point's divergences, perplexity, agreement and severity, and its sums by window.
"""
