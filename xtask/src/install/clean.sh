# SPDX-License-Identifier: MIT OR Apache-2.0
# What a user does, in a clean Debian without a network: see clean.rs for RELEASE, BUILD and VERSION. In /in are the source
# archive, the package, the sources of two drivers that are not ours, and a key for modules. Modules go to /out, by the way that made them.
set -eux

lost() {
    echo "LOST: $*" >&2
    exit 1
}

# keep NAME: the modules that are installed, as insmod of a guest wants them
keep() {
    mkdir "/out/$1"
    find "/lib/modules/$RELEASE/updates" -name 'sq*.ko*' -exec cp {} "/out/$1" \;
    for module in "/out/$1"/*.xz; do [ ! -e "$module" ] || unxz "$module"; done
    for module in sq sq_null sq_ram sq_file; do [ -f "/out/$1/$module.ko" ] || lost "$1 installed no $module.ko"; done
}

# gone WHAT: nothing is left of us
gone() {
    left=$(find /lib/modules /var/lib/dkms /usr/share/doc /lib/udev/rules.d -name sq -o -name 'sq[-_.]*' -o -name '99-sq*'
        find /usr/src /var/cache -maxdepth 1 -name 'sq*')
    [ -z "$left" ] || lost "$1 leaves $left"
}

# That is what a clean machine is.
[ "$(grep -c : /proc/net/dev)" = 1 ] || lost "a network"
! command -v cargo || lost "cargo"
mkdir -p "/lib/modules/$RELEASE"
ln -s "$BUILD" "/lib/modules/$RELEASE/build"
touch "/lib/modules/$RELEASE/modules.order" "/lib/modules/$RELEASE/modules.builtin" # as the kernel's package brings them
KDIR=/lib/modules/$RELEASE/build
export HOME=/tmp/user

# 1. The archive and make.
mkdir /root/src
cd /root/src
tar -xf "/in/sq-$VERSION.tar.xz"
cd "sq-$VERSION/kmod-sq"
make check KDIR=$KDIR
make KDIR=$KDIR
make modules_install KDIR=$KDIR
depmod "$RELEASE"
modprobe --set-version "$RELEASE" --show-depends sq_null | grep "/sq.ko" || lost "sq_null's need of sq"
keep make
rm -rf "/lib/modules/$RELEASE/updates" $HOME
gone "removing by hand"

# 2. DKMS, without HOME, as at boot. It signs with the key that the guest's firmware will trust.
unset HOME
printf '%s\n' mok_signing_key=/in/owner.key mok_certificate=/in/owner.der >/etc/dkms/framework.conf.d/sq.conf
dkms add "/root/src/sq-$VERSION"
# What is missing is said on the terminal, not only in a log. A kernel that is too old is skipped (77), as AUTOINSTALL wants it.
mv /usr/bin/rustc /usr/bin/rustc.away
! dkms build "sq/$VERSION" -k "$RELEASE" >/tmp/said 2>&1
mv /usr/bin/rustc.away /usr/bin/rustc
grep "no usable rustc .*apt install rustc-web rust-web-src" /tmp/said || lost "the message about rustc"
code=0
dkms build "sq/$VERSION" -k 5.10.0-1-amd64 || code=$?
[ $code = 77 ] || lost "77 for an old kernel: $code"
dkms build "sq/$VERSION" -k "$RELEASE"
dkms install "sq/$VERSION" -k "$RELEASE"
dkms status | grep "^sq/$VERSION, $RELEASE, x86_64: installed$"

# Drivers from outside follow, as they do when a kernel is installed.
dkms add /in/outrust
dkms add /in/outc
dkms autoinstall -k "$RELEASE"
[ "$(dkms status | grep -c ", $RELEASE, x86_64: installed$")" = 3 ] || lost "a driver from outside"
keep dkms
dkms remove sq-outrust/0.1.0 --all
dkms remove sq-outc/0.1.0 --all
dkms remove "sq/$VERSION" --all
rm -rf "/usr/src/sq-$VERSION" /usr/src/sq-out* /var/cache/sq # docs/install.md says so
gone "dkms remove"

# 3. The package. Its postinst builds for the kernels that it finds; DKMS signs with a key that it makes.
rm /etc/dkms/framework.conf.d/sq.conf
dpkg -i "/in/sq-dkms_${VERSION}_all.deb"
dkms status | grep "^sq/$VERSION, $RELEASE, x86_64: installed$"
getent group sq || lost "the group of the udev rule"
[ -f /lib/udev/rules.d/99-sq.rules ] || lost "the udev rule"
keep deb
[ "$(ls /out/make)" = "$(ls /out/deb)" ] || lost "a module that make builds, in dkms.conf"
dpkg --remove sq-dkms
gone "removing the package"
dpkg --purge sq-dkms
