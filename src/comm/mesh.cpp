#include "minwm/comm/mesh.h"
