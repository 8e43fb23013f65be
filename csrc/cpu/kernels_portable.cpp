#define ENTPROP_ISA entprop::portable
#include "table.h"
