#include "minwm/comm/communicator.h"
