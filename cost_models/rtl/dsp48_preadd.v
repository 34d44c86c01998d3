// (d - a) * b in one DSP slice, DSP48E2 (E2=1: d and a of 27 bits) or DSP48E1 (25), b of 18 bits. Latency 4:
// the operands', the pre-adder's, the product's and the result's register.
module dsp48_preadd #(
    parameter E2 = 1, PORT = E2 ? 27 : 25
) (
    input  clk, enable,
    input  [PORT-1:0] d, a,
    input  [17:0] b,
    output [47:0] product
);
    // INMODE: D enters the pre-adder, which subtracts A2; B2 is multiplied. OPMODE: X and Y are the product, Z is 0.
    localparam [4:0] SUBTRACT = 5'b01100;
    localparam [6:0] PRODUCT = 7'b0000101;
    wire [29:0] wide_a = {{(30-PORT){1'b0}}, a};
    generate
        if (E2) begin : e2
            DSP48E2 #(
                .AREG(1), .ACASCREG(1), .BREG(2), .BCASCREG(2), .MREG(1), .PREG(1), .OPMODEREG(0),
                .ADREG(1), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0), .CREG(0), .DREG(1), .INMODEREG(0),
                .AMULTSEL("AD")
            ) slice (
                .CLK(clk), .A(wide_a), .B(b), .D(d), .P(product), .OPMODE({2'b00, PRODUCT}), .INMODE(SUBTRACT),
                .CEA1(1'b0), .CEA2(enable), .CEB1(enable), .CEB2(enable), .CED(enable), .CEAD(enable),
                .CEM(enable), .CEP(enable),
                .ALUMODE(4'b0), .CARRYIN(1'b0), .CARRYINSEL(3'b0), .C(48'b0),
                .CEALUMODE(1'b0), .CEC(1'b0), .CECARRYIN(1'b0), .CECTRL(1'b0), .CEINMODE(1'b0),
                .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0), .RSTC(1'b0), .RSTCTRL(1'b0),
                .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0)
            );
        end else begin : e1
            DSP48E1 #(
                .AREG(1), .ACASCREG(1), .BREG(2), .BCASCREG(2), .MREG(1), .PREG(1), .OPMODEREG(0),
                .ADREG(1), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0), .CREG(0), .DREG(1), .INMODEREG(0),
                .USE_DPORT("TRUE")
            ) slice (
                .CLK(clk), .A(wide_a), .B(b), .D(d), .P(product), .OPMODE(PRODUCT), .INMODE(SUBTRACT),
                .CEA1(1'b0), .CEA2(enable), .CEB1(enable), .CEB2(enable), .CED(enable), .CEAD(enable),
                .CEM(enable), .CEP(enable),
                .ALUMODE(4'b0), .CARRYIN(1'b0), .CARRYINSEL(3'b0), .C(48'b0),
                .CEALUMODE(1'b0), .CEC(1'b0), .CECARRYIN(1'b0), .CECTRL(1'b0), .CEINMODE(1'b0),
                .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0), .RSTC(1'b0), .RSTCTRL(1'b0),
                .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0)
            );
        end
    endgenerate
endmodule
