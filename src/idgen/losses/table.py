"""The table of losses, one row each.

The command line, the configuration, the model card, the logs and docs/losses.md read it. A new loss is a file and a
row. A row names its function, which is imported when it is used: `--help` needs the table without torch.
"""

from __future__ import annotations

from .row import Row, Table

UNTIL = 0.85
"""Losses on predicted faces count up to this share of the noise schedule: beyond it the prediction shows no face."""

LOSSES = Table(
    "loss",
    {
        "denoising": Row(
            make="idgen.losses.denoising:DenoisingLoss",
            weight=1.0,
            help="squared error of the predicted noise",
            formula="w(t) · Σ m (ε̂ − ε)² / Σ m; w = min(SNR, γ)/SNR for ε, min(SNR, γ)/(SNR + 1) for v; m = 1 on the "
            "face, `background_weight` elsewhere",
            source="min-SNR (2303.09556); masks as StableIdentity (2401.15975), ConsistentID (2404.16771); `huber` "
            "and `timesteps` as improved consistency training (2310.14189)",
            cost="none",
            use="always; γ = 5; a background weight below 1 when faces are small; `huber` when some photos are bad",
        ),
        "two_phase": Row(
            make="idgen.losses.two_phase:TwoPhaseLoss",
            help="the noise is predicted at noisy timesteps, the clean face at the others",
            formula="mean of m (ε̂ − ε)² from t = `phase` · T on, mean of m (x̂0 − x0)² below; m as in denoising",
            source="StableIdentity (2401.15975)",
            cost="none",
            use="in place of denoising, for pseudo-words of one person from one photo",
        ),
        "identity": Row(
            make="idgen.losses.identity_losses:IdentityLoss",
            weight=2.0,
            window=UNTIL,
            help="cosine distance of the generated face to the target's",
            formula="1 − s(x0, target); with `over` the mean or highest similarity to target and references",
            source="PhotoVerse (2309.05793), PuLID (2404.16022); target's landmarks as WithAnyone (2510.14975, eq. 6)",
            cost="face",
            use="the plain choice; never without a preservation loss",
        ),
        "contrastive": Row(
            make="idgen.losses.mixup:make_contrastive",
            weight=0.01,
            window=UNTIL,
            help="InfoNCE: the generated face against other people's",
            formula="−log( e^(s⁺/τ) / (e^(s⁺/τ) + Σ e^(s⁻/τ)) )",
            source="WithAnyone (eq. 7); `whiskers` as UNPG (2203.11593), `learned` heads and temperatures after AMCL "
            "(2310.05615), `mixup` after Metrix (2106.04990)",
            cost="face, and one product with the bank",
            use="separates people; its gradient is up to 1/τ times its weight. It increases copying of the photo, so "
            "use pairs of different photos. Use whiskers when names in the data are noisy",
        ),
        "features": Row(
            function="idgen.losses.features:feature_loss",
            window=UNTIL,
            help="features of the generated face in the encoder's inner layers are those of the target",
            formula="mean over the layers of mean |F(x0) − F(target)| / mean |F(target)|",
            source="after identity preserving reconstruction (2204.10869)",
            cost="face, and one decoded crop and pass of the encoder without gradient",
            use="early in training, and for details: its gradient is large where faces differ much. It also "
            "copies pose and light of the target",
        ),
        "symmetry": Row(
            function="idgen.losses.symmetry:symmetry_loss",
            window=UNTIL,
            help="the left and the right half of a frontal generated face show the same person",
            formula="ρ (1 − cos(φ(left), φ(right))), each half completed by its mirror image; ρ = max(0, 1 − 2 D), D "
            "the distance of the nose from the middle of the eyes in eye distances",
            source="SymFace (2409.11816)",
            cost="face, and two more passes of the encoder",
            use="when eyes or cheeks of frontal faces do not match. It also removes real asymmetry",
        ),
        "patches": Row(
            function="idgen.losses.patches:patch_loss",
            window=UNTIL,
            help="the eyes, the nose and the mouth have the pixels of the target",
            formula="mean |x0 − target| on four patches of the aligned crop",
            source="TP-GAN (1704.04086)",
            cost="face, and one decoded crop without gradient",
            use="when faces are small in the picture, so that the denoising loss hardly sees them",
        ),
        "triplet": Row(
            make="idgen.losses.identity_losses:TripletLoss",
            window=UNTIL,
            needs=("prior_dir",),
            help="the generated face is nearer to the target than to a face of the base model",
            formula="max(0, s⁻ − s⁺ + m), s⁻ to a prior picture",
            source="ID-Booth (2504.07392)",
            cost="face, and prior pictures",
            use="one person, few photos, with prior preservation; window `decay`",
        ),
        "threshold": Row(
            make="idgen.losses.contrastive:ThresholdLoss",
            window=UNTIL,
            help="one similarity threshold for all people",
            formula="w⁺ · max(0, m⁺ − s⁺) + w⁻ · mean over s⁻ ≥ m⁻ of (s⁻ − m⁻)",
            source="TCM (2307.04047)",
            cost="as contrastive",
            use="with another loss, when one threshold is to separate all people; it is 0 once the threshold does",
        ),
        "mann_whitney": Row(
            make="idgen.losses.contrastive:MannWhitneyLoss",
            window=UNTIL,
            help="soft AUC: each generated face against all negatives of the batch",
            formula="mean over all s⁻ of the batch of softplus(−(s⁺ − s⁻)/τ); of samples that count",
            source='soft AUC ("Optimizing What Matters")',
            cost="as contrastive, times the batch",
            use="instead of contrastive, for a calibrated threshold",
        ),
        "prototype": Row(
            make="idgen.losses.prototypes:PrototypeLoss",
            window=UNTIL,
            help="the generated face is nearer to the person's mean than to that of anybody else in the training set",
            formula="max(0, cos(g, c_k) − cos(g, c_y) + m), c the people's mean embeddings, k the nearest other; with "
            "`learned_prototypes` − ln softmax(cos(target, c)/τ)_y trains them",
            source="SuSana Distancia (2305.09062); learned ones after ProtoN (2508.04381)",
            cost="face, and one product with the people's means",
            use="with several photos per person: a mean depends less on pose and light than the target does, so that "
            "less is copied from it. Learn them when names in the data are noisy",
        ),
        "relation": Row(
            make="idgen.losses.prototypes:RelationLoss",
            window=UNTIL,
            needs=("older_adapter",),
            help="the generated face compares with the people of the training set as that of an older adapter",
            formula="KL(q ‖ p), p = softmax(cos(g, c)/τ) over the people's means, q that of the older adapter",
            source="Prototype-sample relation distillation (2303.14771)",
            cost="face; one UNet forward, decoded crop and pass of the encoder without gradient",
            use="when an adapter is trained further on other photos, so that it keeps what it knows",
        ),
        "error_rates": Row(
            make="idgen.losses.rates:ErrorRateLoss",
            window=UNTIL,
            help="soft false-reject and false-accept rates at one threshold",
            formula="σ((θ − s⁺)/τ) + mean σ((s⁻ − θ)/τ)",
            source="AnyLoss (2405.14745)",
            cost="as contrastive",
            use="for a fixed verification threshold, late in training: its gradient vanishes far from θ",
        ),
        "robust": Row(
            make="idgen.losses.robust:RobustContrastiveLoss",
            window=UNTIL,
            help="a contrastive loss that tolerates wrong names in the data",
            formula="λ log( 1/(n + 1) (1 + Σ e^((s⁻ − s⁺ + m)/λ)) )",
            source="LDR-KL (2112.14869)",
            cost="as contrastive",
            use="instead of contrastive, when people in the data are mixed up; the larger λ, the more it tolerates",
        ),
        "identity_head": Row(
            make="idgen.losses.identity_head:IdentityHeadLoss",
            window=UNTIL,
            help="the generated face is classified as the person, among all people of the training set",
            formula="(1 − p^q)/q, p = softmax(cos(g, w)/τ) of the person; the same of the target trains w",
            source="comp-sum losses (2304.07288), generalised cross-entropy (1805.07836)",
            cost="face, and one product with a learned vector for each person",
            use="instead of contrastive, with up to some ten thousand people; a larger q tolerates more wrong names",
        ),
        "within_group": Row(
            make="idgen.losses.groups:WithinGroupLoss",
            window=UNTIL,
            help="InfoNCE against people of the same group (a column of the shards)",
            formula="−log( e^(s⁺/τ) / (e^(s⁺/τ) + Σ e^(s⁻/τ)) ), s⁻ to people of the same group",
            source="after finer domain partition (2407.08243); the formula is our reading",
            cost="as contrastive",
            use="when faces show the age or sex of the person and not the person",
        ),
        "orthogonality": Row(
            make="idgen.losses.groups:OrthogonalityLoss",
            help="identity tokens do not lie in the direction of the group",
            formula="mean over tokens of cos²(T(e) − T(μ), sg(T(μ_g) − T(μ))), μ the mean embedding, μ_g the group's",
            source="after finer domain partition (2407.08243); the formula is our reading",
            cost="tokens of the groups",
            use="when prompts about the attribute (an age, a hair style) have no effect on the person",
        ),
        "norm_direction": Row(
            make="idgen.losses.norm_direction:NormDirectionLoss",
            window=UNTIL,
            help="the embedding has the direction of the person's mean, and the length of the photo's",
            formula="1 − g·c / max(‖g‖, ‖target‖), c the direction of the person's mean embedding",
            source="ND (2305.17007)",
            cost="face",
            use="instead of identity, with several photos per person and an encoder whose embeddings are longer for "
            "faces that it recognises well (ArcFace's)",
        ),
        "preservation": Row(
            function="idgen.losses.preservation:base_preservation_loss",
            weight=0.1,
            help="outside the face, the base model's prediction",
            formula="mean ((ε̂ − sg ε̂(no adapter)) · (1 − M))²",
            source="W+ Adapter (2311.17461)",
            cost="one UNet forward without gradient",
            use="keeps the base model's style and background",
        ),
        "background": Row(
            function="idgen.losses.preservation:background_loss",
            help="outside the face, the same prediction for a mixed identity, or one with other attributes (moved)",
            formula="mean ((ε̂(id) − sg ε̂(mixed or moved id)) · (1 − M))²",
            source="MasterWeaver (2405.05806); with `moved` `L_disen` of W+ Adapter (2311.17461, weight 2.0)",
            cost="one UNet forward without gradient",
            use="keeps the identity from changing the background",
        ),
        "editing": Row(
            function="idgen.losses.preservation:editing_direction_loss",
            needs=("edits",),
            help="on the face, an edit of the prompt changes the same as without the identity",
            formula="mean over the face of 1 − cos(d, sg d(no identity)), d = F(edited prompt) − F(prompt)",
            source="MasterWeaver, weight 0.02",
            cost="two UNet forwards with gradient, two without",
            use="when prompts about the face (hair, age, expression) have no effect",
        ),
        "style_distance": Row(
            make="idgen.losses.style:StyleDistanceLoss",
            window=UNTIL,
            needs=("styles",),
            help="the generated picture has the styles of folders of pictures",
            formula="mean over styles of ‖z − P z‖²/dim, z statistics of the predicted latent, P the projection onto "
            "the span of a style's pictures",
            source="Hybrid domain adaptation (2310.19378); the features are ours",
            cost="none",
            use="with `unet_lora_rank`, so that a style LoRA and the adapter are trained to fit each other",
        ),
        "style_direction": Row(
            make="idgen.losses.style:StyleDirectionLoss",
            window=UNTIL,
            needs=("styles",),
            help="the picture moves from the base model's straight to the styles",
            formula="1 − cos(z − z₀, P z₀ − z₀), z₀ of the base model's picture, P z₀ the mean over styles",
            source="Hybrid domain adaptation (2310.19378); the features are ours",
            cost="one UNet forward without gradient",
            use="with style_distance, so that the pictures of the style are not copied",
        ),
        "semantic": Row(
            function="idgen.losses.alignment:semantic_alignment_loss",
            help="text attends to the same parts of the picture as without the identity",
            formula="mean (softmax(K Q_idᵀ/√d) Q_id − sg softmax(K Qᵀ/√d) Q)²",
            source="PuLID, weight 0.6",
            cost="one UNet forward without gradient",
            use="with an identity loss, for prompt fidelity",
        ),
        "layout": Row(
            function="idgen.losses.alignment:layout_alignment_loss",
            help="the queries of cross-attention stay as without the identity",
            formula="mean (Q_id − sg Q)²",
            source="PuLID, weight 0.1",
            cost="shares that of semantic",
            use="with semantic",
        ),
        "localisation": Row(
            function="idgen.losses.attention:localisation_loss",
            help="pseudo-words attend to the face, or each to its part (word_parts)",
            formula="1/N Σⱼ (mean Pⱼ outside mⱼ − mean Pⱼ inside mⱼ)",
            source="ConsistentID (eq. 1), weight 0.01",
            cost="attention maps of the text",
            use="for words that stand for the face or its parts (needs `num_words`). It has no effect on a branch of "
            "identity tokens: those maps sum to one at every position; use `in_box` for them",
        ),
        "increment": Row(
            function="idgen.losses.attention:increment_loss",
            help="what the identity adds to the features stays on the face",
            formula="mean ((1 − M) · Δh)²",
            source="FACT (2410.12312); the formula is our reading",
            cost="next to none",
            use="for the identity branch: what it adds stays on the face",
        ),
        "correspondence": Row(
            function="idgen.losses.people:correspondence_loss",
            help="the identity tokens of each person attend to the person's landmarks",
            formula="−1/K Σ_k mean over tokens u and landmarks v of log A[u, v]; A = softmax(K_id Qᵀ/√d), over "
            "positions",
            source="MOSAIC (2509.01977), weight 0.4; identity tokens have no position, so all landmarks match each",
            cost="attention maps of the identity branch",
            use="for pictures of several people, above all without masks (`--group photo`)",
        ),
        "disentanglement": Row(
            make="idgen.losses.people:DisentanglementLoss",
            help="the identity tokens of different people attend to different places",
            formula="−1/(K(K − 1)) Σ_{i≠j} D(a_i, a_j), a_k the mean map of person k; D the Jensen-Shannon divergence",
            source="MOSAIC, weight 0.6; `divergence` kl for the paper's formula, js as in its code",
            cost="shares that of correspondence",
            use="with correspondence; 0 for a single person",
        ),
        "in_box": Row(
            function="idgen.losses.people:in_box_loss",
            help="the identity tokens of each person attend to the box around the face",
            formula="1 − Σ a_k over the box of person k",
            source="localisation as in ConsistentID (2404.16771), on MOSAIC's maps",
            cost="shares that of correspondence",
            use="for the identity branch, where `localisation` has no effect; also with one person per picture",
        ),
        "words": Row(
            function="idgen.losses.attention:word_regulariser",
            help="regulariser of the pseudo-words",
            formula=r"mean \|S*\|",
            source="PhotoVerse, weight 0.01",
            cost="none",
            use="with the text branch (needs `num_words`)",
        ),
        "values": Row(
            function="idgen.losses.attention:value_regulariser",
            help="regulariser of the identity's attention values",
            formula=r"mean \|V\|",
            source="PhotoVerse, weight 0.001",
            cost="none",
            use="with the identity branch; `list(adapter.values(tokens))`",
        ),
    },
)


def losses_table() -> str:
    """The table in the documentation."""
    return LOSSES.markdown()
