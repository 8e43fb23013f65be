#define ENTPROP_ISA entprop::portable
#include "pixmix_loops.h"
