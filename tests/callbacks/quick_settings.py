"""Settings with which a whole run, or all of its analyses, takes seconds."""

QUICK = (
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "logging.wandb.mode=disabled",
    "analysis.probes=2",
    "analysis.units=2",
    "analysis.features.steps=4",
    "analysis.features.classes=2",
    "analysis.saliency.copies=2",
    "analysis.saliency.steps=2",
    "analysis.localization.images=8",
    "analysis.localization.curve_images=0",
    "analysis.adversarial.steps=2",
)
