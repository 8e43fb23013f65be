"""Name the networks of the zoo: some of every family of timm, all classifiers of torchvision."""

from __future__ import annotations

from functools import cache

from bench.zoo.builders import Network
from entprop_fast.optional import import_torchvision

# By the module of timm.models that defines them: the two smallest, and those with norms and tricks
# that these have not. Encoders without a classifier are no image classifiers.
_TIMM = """
beit:beit_base_patch16_224,beitv2_base_patch16_224 byoanet:eca_halonext26ts,lambda_resnet26t
byobnet:test_byobnet,mobileone_s1,regnetz_b16_evos cait:cait_xxs24_224,cait_xxs36_224
coat:coat_tiny,coat_lite_tiny convit:convit_tiny,convit_small
convmixer:convmixer_768_32,convmixer_1024_20_ks9_p14
convnext:test_convnext,test_convnext3,convnext_zepto_rms,convnext_zepto_rms_ols,convnextv2_atto
cpubone:cpubone_nano,cpubone_t0 crossvit:crossvit_tiny_240,crossvit_9_240
csatv2:csatv2,csatv2_21m cspnet:cs3darknet_focus_s,cs3darknet_s
cspnext:cspnext_tiny,cspnext_s davit:davit_tiny,davit_small deepseek_vit:deepseek_vit_412m
deit:deit_tiny_patch16_224,deit_tiny_distilled_patch16_224
densenet:densenet121,densenetblur121d dla:dla46x_c,dla46_c dpn:dpn48b,dpn68
edgenext:edgenext_xx_small,edgenext_x_small
efficientformer:efficientformer_l1,efficientformer_l3
efficientformer_v2:efficientformerv2_s0,efficientformerv2_s1
efficientnet:test_efficientnet,test_efficientnet_gn,test_efficientnet_evos,test_efficientnet_ln,efficientnet_b0_gn
efficientvim:efficientvim_m1,efficientvim_m1_dist
efficientvit_mit:efficientvit_b0,efficientvit_b1
efficientvit_msra:efficientvit_m0,efficientvit_m1
eva:vit_tiny_patch16_dinov3_qkvb,eva02_tiny_patch14_224 fasternet:fasternet_t0,fasternet_t1
fastvit:fastvit_t8,fastvit_t12 focalnet:focalnet_tiny_srf,focalnet_tiny_lrf
gcvit:gcvit_xxtiny,gcvit_xtiny gemma4_vit:gemma4_vit_167m
ghostnet:ghostnet_050,ghostnetv3_050 hardcorenas:hardcorenas_b,hardcorenas_a
hgnet:hgnetv2_b0,hgnetv2_b1 hiera:hiera_tiny_224,hiera_small_abswin_256
hieradet_sam2:sam2_hiera_tiny,sam2_hiera_small hrnet:hrnet_w18_small,hrnet_w18_small_v2
iformer:iformer_t,iformer_s inception_next:inception_next_atto,inception_next_tiny
inception_resnet_v2:inception_resnet_v2 inception_v3:inception_v3 inception_v4:inception_v4
lcnetv2:lcnetv2_small,lcnetv2_base levit:levit_128,levit_192
lowformer:lowformer_b0,lowformer_b1 mambaout:test_mambaout,mambaout_femto
maxxvit:test_coatnet,test_maxvit
metaformer:poolformerv2_s12,poolformer_s12,caformer_s18,convformer_s18
mlp_mixer:gmlp_ti16_224,gmixer_12_224
mobilenetv3:mobilenetv3_small_050,mobilenetv4_conv_small_035
mobilenetv5:mobilenetv5_base,mobilenetv5_300m mobilevit:mobilevit_xxs,mobilevitv2_050
mvitv2:mvitv2_tiny,mvitv2_small
naflexvit:naflexvit_base_patch16_gap,naflexvit_base_patch16_par_gap nasnet:nasnetalarge
nest:nest_tiny,nest_small nextvit:nextvit_small,nextvit_base nfnet:test_nfnet,nf_regnet_b0
pit:pit_ti_224,pit_ti_distilled_224 pnasnet:pnasnet5large pvt_v2:pvt_v2_b0,pvt_v2_b1
qwen3_vit:qwen3_vit_88m rdnet:rdnet_tiny,rdnet_small
regnet:regnetx_002,regnety_002 repghost:repghostnet_050,repghostnet_058
repvit:repvit_m1,repvit_m0_9 res2net:res2next50,res2net50_14w_8s
resnest:resnest14d,resnest26d resnet:test_resnet,resnet18,resnet50_gn
resnetv2:resnetv2_18,resnetv2_18d,resnetv2_50d_gn,resnetv2_50d_evos,resnetv2_50d_frn,resnetv2_50x1_bit
rexnet:rexnet_100,rexnetr_100 selecsls:selecsls42,selecsls60
senet:legacy_seresnet18,legacy_seresnext26_32x4d sequencer:sequencer2d_s,sequencer2d_m
shvit:shvit_s1,shvit_s2 sknet:skresnet18,skresnet34 starnet:starnet_s050,starnet_s100
swiftformer:swiftformer_xs,swiftformer_s
swin_transformer:swin_tiny_patch4_window7_224,swin_s3_tiny_224
swin_transformer_v2:swinv2_tiny_window8_256,swinv2_small_window8_256
swin_transformer_v2_cr:swinv2_cr_tiny_224,swinv2_cr_small_224
tiny_vit:tiny_vit_5m_224,tiny_vit_11m_224 tnt:tnt_s_legacy_patch16_224,tnt_s_patch16_224
tresnet:tresnet_m,tresnet_v2_l twins:twins_svt_small,twins_pcpvt_small vgg:vgg11,vgg11_bn
visformer:visformer_tiny,visformer_small vision_transformer:test_vit,test_vit2,test_vit4
vision_transformer_hybrid:vit_tiny_r_s16_p8_224,vit_small_r26_s32_224
vision_transformer_relpos:test_vit_relpos,vit_srelpos_small_patch16_224
vision_transformer_sam:samvit_base_patch16_224 vitamin:vitamin_small_224,vitamin_base_224
volo:volo_d1_224,volo_d2_224
vovnet:ese_vovnet19b_slim_dw,ese_vovnet19b_slim,ese_vovnet39b_evos xception:legacy_xception
xception_aligned:xception41p,xception41 xcit:xcit_nano_12_p8_224,xcit_tiny_12_p8_224
"""


def families() -> dict[str, list[str]]:
    """Return the names of timm's networks by family."""
    pairs = (entry.split(":") for entry in _TIMM.split())
    return {family: names.split(",") for family, names in pairs}


@cache
def networks() -> tuple[Network, ...]:
    """Return every network: timm's first, torchvision's by their number of parameters."""
    models = import_torchvision("models", purpose="the zoo")
    # Of this module alone, so without torchvision.models.quantization: the same networks with
    # weights of integers, for inference; no gradient reaches their images.
    names = models.list_models(module=models)
    names.sort(key=lambda name: models.get_model_weights(name).DEFAULT.meta["num_params"])
    found = [Network("timm", f, name) for f, members in families().items() for name in members]
    for name in names:
        family = models.get_model_builder(name).__module__.rpartition(".")[2]
        found.append(Network("torchvision", family, name))
    return tuple(found)
